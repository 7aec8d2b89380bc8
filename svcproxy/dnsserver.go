package svcproxy

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

const dnsPort = 53

// dnsSize is the largest UDP answer that fits the smallest usual path; clients on the node's own bridge may take more.
const (
	dnsSize    = 1232
	dnsSizeMax = 4096
)

// dnsServer is the cluster's DNS on one node. Run of the Proxy owns its sockets.
type dnsServer struct {
	cfg      Config
	log      *slog.Logger
	stats    *counters
	zone     atomic.Pointer[zone] // nil until the first table
	domain   string
	forward  *forwarder
	tcpConns *shares                // connections of clients
	sockets  map[Protocol]dnsSocket // the open ones
	kick     func()                 // a socket has failed: listen again
}

// dnsSocket is one open socket of the server.
type dnsSocket interface {
	broken() bool // it has failed, and serves no more
	at() uint16   // the port that it has
	close()
}

func newDNSServer(cfg Config, stats *counters, kick func()) *dnsServer {
	return &dnsServer{cfg: cfg, log: cfg.Log, stats: stats, domain: zoneDomain(cfg.ClusterDomain),
		forward: newForwarder(cfg, stats), sockets: map[Protocol]dnsSocket{}, kick: kick,
		tcpConns: newShares("DNS connections", maxDNSConns, cfg.Log)}
}

// listen opens the sockets that are not open; problems go to found. It reports whether to try again later.
func (d *dnsServer) listen(found map[string]Problem) (again bool) {
	addr := netip.AddrPortFrom(d.cfg.DNSAddr, dnsPort)
	for _, proto := range []Protocol{UDP, TCP} {
		if open := d.sockets[proto]; open != nil && !open.broken() {
			continue
		} else if open != nil {
			open.close()
			delete(d.sockets, proto)
		}
		listen := d.listenUDP
		if proto == TCP {
			listen = d.listenTCP
		}
		s, err := listen(addr)
		if err != nil && isAddrInUse(err) && d.cfg.Sockets != nil {
			s, err = listen(netip.AddrPortFrom(addr.Addr(), 0)) // as Proxy.open does
		}
		if err != nil {
			key := listenKey{proto, addr}
			note(found, key, "cluster DNS", explainListen(key, err).Error())
			again = true
			continue
		}
		d.sockets[proto] = s
	}
	return again
}

func (d *dnsServer) close() {
	for proto, s := range d.sockets {
		s.close()
		delete(d.sockets, proto)
	}
}

// answer makes the answer to a request, fit to be sent, and hands it to send: at once, later, or never when the client
// has too many requests in hand (over UDP, where it asks again).
func (d *dnsServer) answer(req *dns.Msg, from asker, send func(*dns.Msg)) {
	d.stats.dnsQueries.Add(1)
	req = slim(req)
	d.respond(req, from, func(m *dns.Msg) {
		if m.Rcode == dns.RcodeServerFailure {
			d.stats.dnsFailed.Add(1)
		}
		fit(m, req, from.tcp)
		send(m)
	})
}

// slim is what an answer needs of its request: at most some 600 bytes, whatever the client sent along.
func slim(req *dns.Msg) *dns.Msg {
	out := &dns.Msg{MsgHdr: req.MsgHdr, Question: req.Question}
	if opt := req.IsEdns0(); opt != nil {
		out.SetEdns0(opt.UDPSize(), opt.Do())
	}
	return out
}

// respond makes the answer to a request, whatever it is. It calls then at most once.
func (d *dnsServer) respond(req *dns.Msg, from asker, then func(*dns.Msg)) {
	switch {
	case req.Opcode != dns.OpcodeQuery:
		then(refusal(req, dns.RcodeNotImplemented))
		return
	case len(req.Question) != 1:
		then(refusal(req, dns.RcodeFormatError))
		return
	case req.Question[0].Qclass != dns.ClassINET:
		then(refusal(req, dns.RcodeRefused))
		return
	}
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	z := d.zone.Load()
	switch {
	case z == nil && dns.IsSubDomain(d.domain, name):
		then(refusal(req, dns.RcodeServerFailure)) // not known yet is not the same as not existing
	case z == nil || !z.owns(name):
		d.forward.resolve(req, from, then)
	default:
		d.local(z, req, q, from, then)
	}
}

// local answers from the zone, and follows an ExternalName.
func (d *dnsServer) local(z *zone, req *dns.Msg, q dns.Question, from asker, then func(*dns.Msg)) {
	m := new(dns.Msg)
	m.SetReply(req)
	m.Authoritative, m.RecursionAvailable = true, true
	r := z.answer(q.Name, q.Qtype)
	for hops := 0; r.chase != "" && q.Qtype != dns.TypeCNAME; hops++ {
		m.Answer = append(m.Answer, r.answer...)
		to := r.chase
		r = zoneReply{}
		if z.owns(strings.ToLower(to)) {
			if hops < 8 {
				r = z.answer(to, q.Qtype)
			}
			continue
		}
		sub := new(dns.Msg)
		sub.SetQuestion(to, q.Qtype)
		d.forward.resolve(sub, from, func(far *dns.Msg) {
			m.Rcode = far.Rcode
			m.Answer = append(m.Answer, far.Answer...)
			m.Ns = append(m.Ns, far.Ns...)
			then(m)
		})
		return
	}
	shuffle(r.answer)
	m.Rcode = r.rcode
	m.Answer = append(m.Answer, r.answer...)
	m.Extra = r.extra
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{z.soa()}
	}
	then(m)
}

// shuffle spreads clients, most of which take the first answer.
func shuffle(rrs []dns.RR) {
	rand.Shuffle(len(rrs), func(i, j int) { rrs[i], rrs[j] = rrs[j], rrs[i] })
}

func refusal(req *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(req, rcode)
	m.RecursionAvailable = true
	return m
}

// fit makes an answer as large as the client can take: by EDNS what it says, else 512 bytes; what does not fit comes
// over TCP, to which the truncation bit sends the client.
func fit(m, req *dns.Msg, tcp bool) {
	size := dns.MinMsgSize
	if opt := req.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), dns.MinMsgSize), dnsSizeMax)
		m.SetEdns0(dnsSize, opt.Do())
	}
	if tcp {
		size = dns.MaxMsgSize
	}
	m.Compress = true
	m.Truncate(size)
}
