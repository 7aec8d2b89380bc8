package svcproxy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

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
	cfg     Config
	log     *slog.Logger
	stats   *counters
	zone    atomic.Pointer[zone] // nil until the first table
	domain  string
	forward *forwarder
	servers map[Protocol]*dnsSocket // the open ones
	kick    func()                  // a socket has failed: listen again
}

// dnsSocket is one open socket of the server.
type dnsSocket struct {
	*dns.Server
	failed atomic.Bool
}

func newDNSServer(cfg Config, stats *counters, kick func()) *dnsServer {
	return &dnsServer{cfg: cfg, log: cfg.Log, stats: stats, domain: zoneDomain(cfg.ClusterDomain),
		forward: newForwarder(cfg, stats), servers: map[Protocol]*dnsSocket{}, kick: kick}
}

// listen opens the sockets that are not open; problems go to found. It tells whether to try again later.
func (d *dnsServer) listen(found map[string]Problem) (again bool) {
	addr := netip.AddrPortFrom(d.cfg.DNSAddr, dnsPort)
	for _, proto := range []Protocol{UDP, TCP} {
		if open := d.servers[proto]; open != nil && !open.failed.Load() {
			continue
		} else if open != nil {
			d.shut(open)
		}
		s, err := d.bind(proto, addr)
		if err != nil {
			key := listenKey{proto, addr}
			note(found, key, "cluster DNS", explainListen(key, err).Error())
			again = true
			continue
		}
		d.servers[proto] = s
		go d.serve(s)
	}
	return again
}

func (d *dnsServer) bind(proto Protocol, addr netip.AddrPort) (*dnsSocket, error) {
	lc := net.ListenConfig{Control: freeBind}
	lc.SetMultipathTCP(false)
	// The default read timeout would wake an idle server every two seconds.
	s := &dnsSocket{Server: &dns.Server{Handler: d, UDPSize: dnsSize, ReadTimeout: 24 * time.Hour}}
	var err error
	if proto == UDP {
		s.PacketConn, err = lc.ListenPacket(context.Background(), network("udp", addr), addr.String())
		return s, err
	}
	s.ReadTimeout = 10 * time.Second // here it is for how long a client may say nothing
	s.Listener, err = lc.Listen(context.Background(), network("tcp", addr), addr.String())
	return s, err
}

func (d *dnsServer) serve(s *dnsSocket) {
	if err := s.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
		d.log.Error("cluster DNS socket failed", "error", err)
		s.failed.Store(true)
		d.kick()
	}
}

func (d *dnsServer) close() {
	for proto, s := range d.servers {
		d.shut(s)
		delete(d.servers, proto)
	}
}

// shut ends a socket's server. Shutdown refuses one whose goroutine has not begun; closing the socket ends that as well.
func (d *dnsServer) shut(s *dnsSocket) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.ShutdownContext(ctx)
	if s.PacketConn != nil {
		_ = s.PacketConn.Close()
	}
	if s.Listener != nil {
		_ = s.Listener.Close()
	}
}

// ServeDNS answers one question. It is called on a goroutine of its own.
func (d *dnsServer) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	d.stats.dnsQueries.Add(1)
	m := d.respond(req)
	if m.Rcode == dns.RcodeServerFailure {
		d.stats.dnsFailed.Add(1)
	}
	fit(m, req, w.RemoteAddr().Network() == "tcp")
	if err := w.WriteMsg(m); err != nil {
		d.log.Debug("DNS answer not delivered", "client", w.RemoteAddr().String(), "error", err)
	}
}

// respond makes the answer to a request, whatever it is.
func (d *dnsServer) respond(req *dns.Msg) *dns.Msg {
	switch {
	case req.Opcode != dns.OpcodeQuery:
		return refusal(req, dns.RcodeNotImplemented)
	case len(req.Question) != 1:
		return refusal(req, dns.RcodeFormatError)
	case req.Question[0].Qclass != dns.ClassINET:
		return refusal(req, dns.RcodeRefused)
	}
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	z := d.zone.Load()
	if z == nil {
		if dns.IsSubDomain(d.domain, name) {
			return refusal(req, dns.RcodeServerFailure) // not known yet is not the same as not existing
		}
		return d.forward.resolve(req)
	}
	if !z.owns(name) {
		return d.forward.resolve(req)
	}
	return d.local(z, req, q)
}

// local answers from the zone, and follows an ExternalName.
func (d *dnsServer) local(z *zone, req *dns.Msg, q dns.Question) *dns.Msg {
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
		far := d.forward.resolve(sub)
		m.Rcode = far.Rcode
		m.Answer = append(m.Answer, far.Answer...)
		m.Ns = append(m.Ns, far.Ns...)
		return m
	}
	shuffle(r.answer)
	m.Rcode = r.rcode
	m.Answer = append(m.Answer, r.answer...)
	m.Extra = r.extra
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{z.soa()}
	}
	return m
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
