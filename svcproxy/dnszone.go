package svcproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// dnsTTL is the life of cluster answers in seconds, and of refusals: short, since Services change and asking is cheap.
const dnsTTL = 5

// zone answers for the cluster's names, as the Kubernetes DNS specification 1.1.0 says. It is immutable.
//
//	<svc>.<ns>.svc.<domain>               A, AAAA: ClusterIPs, or for a headless Service all ready endpoints;
//	                                      CNAME for an ExternalName; SRV for all ports
//	<host>.<svc>.<ns>.svc.<domain>        A, AAAA of one endpoint; <host> is its hostname, or its address with dashes
//	_<port>._<proto>.<svc>.<ns>.svc...    SRV
//	<a-b-c-d>.<ns>.pod.<domain>           A, AAAA: the address in the name
//	<...>.in-addr.arpa, ip6.arpa          PTR of ClusterIPs and endpoints
type zone struct {
	domain     string              // lower case, with the final dot
	services   map[string]*Service // by "<svc>.<ns>"
	namespaces map[string]bool
	reverse    map[netip.Addr][]string
	cidrs      []netip.Prefix
}

// zoneReply is an answer of the zone. chase is a name whose records the client needs as well (target of a CNAME).
type zoneReply struct {
	rcode  int
	answer []dns.RR
	extra  []dns.RR
	chase  string
}

func newZone(t *Table, domain string, serviceCIDRs []netip.Prefix) *zone {
	z := &zone{
		domain:     zoneDomain(domain),
		services:   make(map[string]*Service, len(t.Services)),
		namespaces: map[string]bool{},
		reverse:    map[netip.Addr][]string{},
		cidrs:      serviceCIDRs,
	}
	for i := range t.Services {
		s := &t.Services[i]
		key := strings.ToLower(s.Name + "." + s.Namespace)
		z.services[key] = s
		z.namespaces[strings.ToLower(s.Namespace)] = true
		name := key + ".svc." + z.domain
		for _, ip := range s.ClusterIPs {
			z.reverse[ip.Unmap()] = append(z.reverse[ip.Unmap()], name)
		}
		for j := range s.Endpoints {
			if e := &s.Endpoints[j]; s.named(e) {
				z.reverse[e.Addr.Unmap()] = append(z.reverse[e.Addr.Unmap()], endpointHost(e)+"."+name)
			}
		}
	}
	return z
}

func zoneDomain(domain string) string {
	if domain == "" {
		domain = "cluster.local"
	}
	return strings.ToLower(dns.Fqdn(domain))
}

// named reports whether an endpoint is in DNS.
func (s *Service) named(e *Endpoint) bool {
	return e.Addr.IsValid() && (e.Ready || s.PublishNotReady)
}

func (s *Service) headless() bool { return len(s.ClusterIPs) == 0 && s.ExternalName == "" }

// externalAddress reports whether an ExternalName is an address, which cannot be the target of a CNAME: such a Service has no
// name, as in CoreDNS.
func (s *Service) externalAddress() bool {
	_, err := netip.ParseAddr(strings.TrimSuffix(s.ExternalName, "."))
	return err == nil
}

// endpointHost is the first label of an endpoint's name.
func endpointHost(e *Endpoint) string {
	if e.Hostname != "" {
		return strings.ToLower(e.Hostname)
	}
	return dashed(e.Addr)
}

func dashed(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.Unmap().String())
}

// owns reports whether the zone alone answers for a name (lower case, with the final dot): if not, others may know it.
func (z *zone) owns(name string) bool {
	if dns.IsSubDomain(z.domain, name) {
		return true
	}
	a, ok := reverseAddr(name)
	if !ok {
		return false
	}
	_, known := z.reverse[a]
	return known || slices.ContainsFunc(z.cidrs, func(c netip.Prefix) bool { return c.Contains(a) })
}

// answer answers a question that the zone owns. qname keeps the letter case of the question, as answers must.
func (z *zone) answer(qname string, qtype uint16) zoneReply {
	name := strings.ToLower(qname)
	if a, ok := reverseAddr(name); ok {
		return z.answerReverse(qname, qtype, a)
	}
	labels := dns.SplitDomainName(strings.TrimSuffix(name, z.domain))
	n := len(labels)
	if n == 0 {
		return z.answerApex(qname, qtype)
	}
	switch kind, rest := labels[n-1], labels[:n-1]; {
	case kind == "svc":
		return z.answerService(qname, qtype, rest)
	case kind == "pod":
		return z.answerPod(qname, qtype, rest)
	case kind == "dns-version" && n == 1:
		if qtype == dns.TypeTXT {
			return reply(&dns.TXT{Hdr: header(qname, dns.TypeTXT), Txt: []string{"1.1.0"}})
		}
		return zoneReply{}
	}
	return zoneReply{rcode: dns.RcodeNameError}
}

func (z *zone) answerApex(qname string, qtype uint16) zoneReply {
	switch qtype {
	case dns.TypeSOA:
		return reply(z.soa())
	case dns.TypeNS:
		return reply(&dns.NS{Hdr: header(qname, dns.TypeNS), Ns: "ns.dns." + z.domain})
	}
	return zoneReply{}
}

func (z *zone) answerService(qname string, qtype uint16, labels []string) zoneReply {
	n := len(labels)
	if n < 2 { // "svc" itself, or a namespace under it: names without records
		if n == 0 || z.namespaces[labels[0]] {
			return zoneReply{}
		}
		return zoneReply{rcode: dns.RcodeNameError}
	}
	s := z.services[labels[n-2]+"."+labels[n-1]]
	if s == nil || s.externalAddress() {
		return zoneReply{rcode: dns.RcodeNameError}
	}
	base := labels[n-2] + "." + labels[n-1] + ".svc." + z.domain
	switch {
	case n == 2 && s.ExternalName != "":
		to := dns.Fqdn(s.ExternalName)
		return zoneReply{answer: []dns.RR{&dns.CNAME{Hdr: header(qname, dns.TypeCNAME), Target: to}}, chase: to}
	case n == 2 && qtype == dns.TypeSRV:
		return z.srv(qname, base, s, func(Port) bool { return true })
	case n == 2:
		return zoneReply{answer: addressRecords(qname, qtype, s.addresses(""))}
	case n == 3:
		ips := s.addresses(labels[0])
		if len(ips) == 0 {
			return zoneReply{rcode: dns.RcodeNameError}
		}
		return zoneReply{answer: addressRecords(qname, qtype, ips)}
	case n == 4 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_"):
		port, proto := labels[0][1:], labels[1][1:]
		match := func(p Port) bool {
			return p.Name != "" && strings.EqualFold(p.Name, port) && strings.EqualFold(string(p.Protocol), proto)
		}
		if !slices.ContainsFunc(s.Ports, match) {
			return zoneReply{rcode: dns.RcodeNameError}
		}
		if qtype != dns.TypeSRV {
			return zoneReply{}
		}
		return z.srv(qname, base, s, match)
	}
	return zoneReply{rcode: dns.RcodeNameError}
}

// addresses of a Service by its own name (host empty), or of the endpoints called host.
func (s *Service) addresses(host string) []netip.Addr {
	if host == "" && !s.headless() {
		return s.ClusterIPs
	}
	var ips []netip.Addr
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if s.named(e) && (host == "" || endpointHost(e) == host) && !slices.Contains(ips, e.Addr) {
			ips = append(ips, e.Addr)
		}
	}
	return ips
}

// srv lists the ports that match: of the Service, or for a headless one of each endpoint.
func (z *zone) srv(qname, base string, s *Service, match func(Port) bool) zoneReply {
	var r zoneReply
	add := func(target string, port uint16, ips []netip.Addr) {
		r.answer = append(r.answer, &dns.SRV{Hdr: header(qname, dns.TypeSRV), Weight: 100, Port: port, Target: target})
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, rr := range addressRecords(target, qtype, ips) {
				if !slices.ContainsFunc(r.extra, func(o dns.RR) bool { return dns.IsDuplicate(o, rr) }) {
					r.extra = append(r.extra, rr)
				}
			}
		}
	}
	for _, p := range s.Ports {
		if !match(p) {
			continue
		}
		if !s.headless() {
			if s.ExternalName == "" {
				add(base, p.Port, s.ClusterIPs)
			}
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if n := e.Ports[p.Name]; n != 0 && s.named(e) {
				add(endpointHost(e)+"."+base, n, []netip.Addr{e.Addr})
			}
		}
	}
	return r
}

// answerPod reads the address out of the name; it says nothing about a pod being there.
func (z *zone) answerPod(qname string, qtype uint16, labels []string) zoneReply {
	switch len(labels) {
	case 0:
		return zoneReply{}
	case 1:
		if z.namespaces[labels[0]] {
			return zoneReply{}
		}
	case 2:
		a, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", "."))
		if err != nil {
			a, err = netip.ParseAddr(strings.ReplaceAll(labels[0], "-", ":"))
		}
		if err == nil {
			return zoneReply{answer: addressRecords(qname, qtype, []netip.Addr{a})}
		}
	}
	return zoneReply{rcode: dns.RcodeNameError}
}

func (z *zone) answerReverse(qname string, qtype uint16, a netip.Addr) zoneReply {
	names := z.reverse[a]
	if len(names) == 0 {
		return zoneReply{rcode: dns.RcodeNameError}
	}
	if qtype != dns.TypePTR {
		return zoneReply{}
	}
	var r zoneReply
	for _, name := range names {
		r.answer = append(r.answer, &dns.PTR{Hdr: header(qname, dns.TypePTR), Ptr: name})
	}
	return r
}

// soa goes with every refusal and says for how long it holds.
func (z *zone) soa() dns.RR {
	return &dns.SOA{Hdr: header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: dnsTTL}
}

func reply(rr dns.RR) zoneReply { return zoneReply{answer: []dns.RR{rr}} }

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: dnsTTL}
}

func addressRecords(name string, qtype uint16, ips []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, ip := range ips {
		ip = ip.Unmap()
		switch {
		case qtype == dns.TypeA && ip.Is4():
			out = append(out, &dns.A{Hdr: header(name, dns.TypeA), A: ip.AsSlice()})
		case qtype == dns.TypeAAAA && ip.Is6():
			out = append(out, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	}
	return out
}

// reverseAddr reads a complete in-addr.arpa or ip6.arpa name (lower case).
func reverseAddr(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		p := strings.Split(v4, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(fmt.Sprintf("%s.%s.%s.%s", p[3], p[2], p[1], p[0]))
		return a, err == nil
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(v6) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 31; i >= 0; i-- {
		if i < 31 && v6[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b.WriteByte(v6[2*i])
		if i%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
