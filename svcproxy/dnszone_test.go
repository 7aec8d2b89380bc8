package svcproxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func testZone() *zone {
	return newZone(&Table{Services: []Service{
		{Namespace: "default", Name: "kubernetes", ClusterIPs: addrs("10.43.0.1"), Ports: []Port{{Name: "https", Protocol: TCP, Port: 443}},
			Endpoints: []Endpoint{{Addr: netip.MustParseAddr("192.168.1.2"), Ports: map[string]uint16{"https": 6443}, Ready: true}}},
		{Namespace: "default", Name: "dual", ClusterIPs: addrs("10.43.0.9", "fd00:43::9"), Ports: []Port{{Protocol: TCP, Port: 80}}},
		{Namespace: "db", Name: "pg", Ports: []Port{{Name: "sql", Protocol: TCP, Port: 5432}, {Name: "gossip", Protocol: UDP, Port: 7946}},
			Endpoints: []Endpoint{
				{Addr: netip.MustParseAddr("10.42.0.5"), Hostname: "pg-0", Ports: map[string]uint16{"sql": 5432, "gossip": 7946}, Ready: true},
				{Addr: netip.MustParseAddr("10.42.1.6"), Hostname: "pg-1", Ports: map[string]uint16{"sql": 15432}, Ready: true},
				{Addr: netip.MustParseAddr("10.42.1.7"), Ports: map[string]uint16{"sql": 5432}, Ready: true},
				{Addr: netip.MustParseAddr("10.42.1.8"), Hostname: "pg-3", Ports: map[string]uint16{"sql": 5432}, Serving: true, Terminating: true},
			}},
		{Namespace: "db", Name: "seed", PublishNotReady: true,
			Endpoints: []Endpoint{{Addr: netip.MustParseAddr("10.42.1.8"), Hostname: "pg-3"}}},
		{Namespace: "default", Name: "mirror", ExternalName: "mirror.example.org"},
		{Namespace: "default", Name: "address", ExternalName: "192.0.2.7"},
		{Namespace: "default", Name: "address6", ExternalName: "2001:db8::7"},
		{Namespace: "default", Name: "alias", ExternalName: "kubernetes.default.svc.cluster.local"},
	}}, "", []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")})
}

func TestZone(t *testing.T) {
	z := testZone()
	const none, no = "no records", "NXDOMAIN"
	for _, c := range []struct{ name, qtype, want string }{
		{"kubernetes.default.svc.cluster.local.", "A", "10.43.0.1"},
		{"KuberNetes.Default.svc.cluster.LOCAL.", "A", "10.43.0.1"},
		{"kubernetes.default.svc.cluster.local.", "AAAA", none},
		{"kubernetes.default.svc.cluster.local.", "SRV", "0 100 443 kubernetes.default.svc.cluster.local. + 10.43.0.1"},
		{"_https._tcp.kubernetes.default.svc.cluster.local.", "SRV", "0 100 443 kubernetes.default.svc.cluster.local. + 10.43.0.1"},
		{"_https._tcp.kubernetes.default.svc.cluster.local.", "A", none},
		{"_https._udp.kubernetes.default.svc.cluster.local.", "SRV", no},
		{"_http._tcp.kubernetes.default.svc.cluster.local.", "SRV", no},
		{"dual.default.svc.cluster.local.", "A", "10.43.0.9"},
		{"dual.default.svc.cluster.local.", "AAAA", "fd00:43::9"},
		{"address.default.svc.cluster.local.", "A", no},
		{"address6.default.svc.cluster.local.", "AAAA", no},
		{"pg.db.svc.cluster.local.", "A", "10.42.0.5 10.42.1.6 10.42.1.7"},
		{"pg-0.pg.db.svc.cluster.local.", "A", "10.42.0.5"},
		{"10-42-1-7.pg.db.svc.cluster.local.", "A", "10.42.1.7"},
		{"10-42-0-5.pg.db.svc.cluster.local.", "A", no}, // it has a hostname
		{"pg-3.pg.db.svc.cluster.local.", "A", no},      // not ready
		{"pg-3.seed.db.svc.cluster.local.", "A", "10.42.1.8"},
		{"192-168-1-2.kubernetes.default.svc.cluster.local.", "A", "192.168.1.2"},
		{"_sql._tcp.pg.db.svc.cluster.local.", "SRV",
			"0 100 15432 pg-1.pg.db.svc.cluster.local. 0 100 5432 10-42-1-7.pg.db.svc.cluster.local. 0 100 5432 pg-0.pg.db.svc.cluster.local. + 10.42.0.5 10.42.1.6 10.42.1.7"},
		{"_gossip._udp.pg.db.svc.cluster.local.", "SRV", "0 100 7946 pg-0.pg.db.svc.cluster.local. + 10.42.0.5"},
		{"mirror.default.svc.cluster.local.", "A", "mirror.example.org. → mirror.example.org."},
		{"nobody.default.svc.cluster.local.", "A", no},
		{"kubernetes.elsewhere.svc.cluster.local.", "A", no},
		{"default.svc.cluster.local.", "A", none},
		{"elsewhere.svc.cluster.local.", "A", no},
		{"svc.cluster.local.", "A", none},
		{"cluster.local.", "A", none},
		{"cluster.local.", "NS", "ns.dns.cluster.local."},
		{"dns-version.cluster.local.", "TXT", `"1.1.0"`},
		{"x.cluster.local.", "A", no},
		{"google.com.default.svc.cluster.local.", "A", no}, // what search domains make of outside names
		{"a.b.c.d.e.default.svc.cluster.local.", "A", no},
		{"10-42-0-5.default.pod.cluster.local.", "A", "10.42.0.5"},
		{"fd00--5.default.pod.cluster.local.", "AAAA", "fd00::5"},
		{"not-an-address.default.pod.cluster.local.", "A", no},
		{"1.0.43.10.in-addr.arpa.", "PTR", "kubernetes.default.svc.cluster.local."},
		{"5.0.42.10.in-addr.arpa.", "PTR", "pg-0.pg.db.svc.cluster.local."},
		{"7.1.42.10.in-addr.arpa.", "PTR", "10-42-1-7.pg.db.svc.cluster.local."},
		{"77.0.43.10.in-addr.arpa.", "PTR", no},
		{"9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.0.0.0.0.d.f.ip6.arpa.", "PTR", "dual.default.svc.cluster.local."},
	} {
		t.Run(c.name+" "+c.qtype, func(t *testing.T) {
			if !z.owns(strings.ToLower(c.name)) {
				t.Fatal("the zone does not own it")
			}
			r := z.answer(c.name, dns.StringToType[c.qtype])
			if got := show(r); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			for _, rr := range r.answer {
				if rr.Header().Name != c.name || rr.Header().Ttl != dnsTTL {
					t.Errorf("record of another name or TTL: %v", rr)
				}
			}
		})
	}
}

func TestZoneLeavesOthersAlone(t *testing.T) {
	z := testZone()
	for _, name := range []string{"example.org.", ".", "local.", "xcluster.local.", "1.1.168.192.in-addr.arpa.", "43.10.in-addr.arpa.",
		"9.0.0.0.ip6.arpa.", "x.0.43.10.in-addr.arpa.", "arpa."} {
		if z.owns(name) {
			t.Errorf("the zone claims %s", name)
		}
	}
}

// show writes a reply as the values of its records, sorted.
func show(r zoneReply) string {
	if r.rcode == dns.RcodeNameError {
		return "NXDOMAIN"
	}
	if len(r.answer) == 0 {
		return "no records"
	}
	values := func(rrs []dns.RR) string {
		var out []string
		for _, rr := range rrs {
			out = append(out, strings.ReplaceAll(strings.TrimPrefix(rr.String(), rr.Header().String()), "\t", " "))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	s := values(r.answer)
	if len(r.extra) > 0 {
		s += " + " + values(r.extra)
	}
	if r.chase != "" {
		s += " → " + r.chase
	}
	return s
}

// No question makes the zone panic or answer with records of another type.
func FuzzZone(f *testing.F) {
	z := testZone()
	for _, name := range []string{"kubernetes.default.svc.cluster.local.", "_._.a.b.svc.cluster.local.", ".cluster.local.", "..svc.cluster.local.",
		"1.0.43.10.in-addr.arpa.", "a.pod.cluster.local."} {
		f.Add(name, dns.TypeA)
	}
	f.Fuzz(func(t *testing.T, name string, qtype uint16) {
		if _, ok := dns.IsDomainName(name); !ok || !dns.IsFqdn(name) || !z.owns(strings.ToLower(name)) {
			return
		}
		r := z.answer(name, qtype)
		for _, rr := range r.answer {
			if got := rr.Header().Rrtype; got != qtype && got != dns.TypeCNAME {
				t.Errorf("%s %d answered with %v", name, qtype, rr)
			}
		}
	})
}
