package svcproxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	upstreamTimeout = 2 * time.Second
	// upstreamRest is how long servers that did not answer are left alone. While all are, questions fail at once, but
	// for one at a time that tries whether the world is back.
	upstreamRest = 5 * time.Second
	// maxPending bounds the questions that wait for upstream.
	maxPending = 256
)

// forwarder resolves names outside the cluster with the host's servers, through a cache.
type forwarder struct {
	log     *slog.Logger
	stats   *counters
	servers *serverList
	cache   *dnsCache
	timeout time.Duration // for one server's answer; all together get twice that

	mu      sync.Mutex
	pending map[question]*pendingQuestion
	rests   map[netip.AddrPort]time.Time // servers left alone, until when
}

// question is what makes two requests the same.
type question struct {
	name            string // lower case
	qtype           uint16
	dnssec, noCheck bool
}

// pendingQuestion is one that was sent upstream; others who ask the same wait for it. So a name server that asks us in
// return (a loop in the host's configuration) waits for itself once, instead of multiplying.
type pendingQuestion struct {
	done  chan struct{}
	reply *dns.Msg // nil: failed
}

func newForwarder(cfg Config, stats *counters) *forwarder {
	return &forwarder{log: cfg.Log, stats: stats, servers: newServerList(cfg), cache: newDNSCache(maxCached),
		timeout: cmp.Or(cfg.upstreamTimeout, upstreamTimeout),
		pending: map[question]*pendingQuestion{}, rests: map[netip.AddrPort]time.Time{}}
}

func questionOf(req *dns.Msg) question {
	q := question{name: strings.ToLower(req.Question[0].Name), qtype: req.Question[0].Qtype, noCheck: req.CheckingDisabled}
	if opt := req.IsEdns0(); opt != nil {
		q.dnssec = opt.Do()
	}
	return q
}

// resolve answers a request: from the cache, from upstream, or, when upstream is silent, with what the cache last knew
// (RFC 8767). If all fails, SERVFAIL.
func (f *forwarder) resolve(req *dns.Msg) *dns.Msg {
	q := questionOf(req)
	if m := f.cache.get(q, time.Now(), false); m != nil {
		f.stats.dnsCached.Add(1)
		return addressed(m, req)
	}
	m := f.ask(q)
	if m == nil {
		if m = f.cache.get(q, time.Now(), true); m == nil {
			return refusal(req, dns.RcodeServerFailure)
		}
		f.stats.dnsCached.Add(1)
	}
	return addressed(m, req)
}

// addressed makes a reply the answer to this request. The reply is shared and not changed.
func addressed(m, req *dns.Msg) *dns.Msg {
	out := *m
	out.Id, out.Question, out.RecursionDesired = req.Id, req.Question, req.RecursionDesired
	out.Response, out.RecursionAvailable, out.Authoritative = true, true, false
	out.Answer, out.Ns = append([]dns.RR(nil), m.Answer...), append([]dns.RR(nil), m.Ns...)
	out.Extra = nil
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			out.Extra = append(out.Extra, rr)
		}
	}
	return &out
}

// ask sends a question upstream, once however many want to know. Nil: no answer.
func (f *forwarder) ask(q question) *dns.Msg {
	f.mu.Lock()
	if p := f.pending[q]; p != nil {
		f.mu.Unlock()
		<-p.done
		return p.reply
	}
	servers := f.usable(time.Now(), len(f.pending) > 0)
	if len(servers) == 0 || len(f.pending) >= maxPending {
		f.mu.Unlock()
		return nil
	}
	p := &pendingQuestion{done: make(chan struct{})}
	f.pending[q] = p
	f.mu.Unlock()

	p.reply = f.exchange(q, servers)
	if p.reply != nil {
		f.cache.put(q, p.reply, time.Now())
	}
	f.mu.Lock()
	delete(f.pending, q)
	f.mu.Unlock()
	close(p.done)
	return p.reply
}

// usable lists the servers that are worth asking. If all rest, one question at a time may try them. The caller holds mu.
func (f *forwarder) usable(now time.Time, busy bool) []netip.AddrPort {
	all := f.servers.current(now)
	var awake []netip.AddrPort
	for _, s := range all {
		if now.After(f.rests[s]) {
			awake = append(awake, s)
		}
	}
	if len(awake) == 0 && !busy {
		return all
	}
	return awake
}

// exchange asks one server after the other.
func (f *forwarder) exchange(q question, servers []netip.AddrPort) *dns.Msg {
	f.stats.dnsForwarded.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*f.timeout)
	defer cancel()
	req := new(dns.Msg)
	req.SetQuestion(q.name, q.qtype)
	req.CheckingDisabled = q.noCheck
	req.SetEdns0(dnsSize, q.dnssec)
	var worst *dns.Msg
	for _, s := range servers {
		m, err := f.exchangeOne(ctx, req, s)
		if err != nil {
			f.rest(s, err)
			continue
		}
		f.mu.Lock()
		delete(f.rests, s)
		f.mu.Unlock()
		if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
			return m
		}
		worst = m // SERVFAIL, REFUSED: another server may know better
	}
	return worst
}

func (f *forwarder) exchangeOne(ctx context.Context, req *dns.Msg, s netip.AddrPort) (*dns.Msg, error) {
	c := dns.Client{Net: network("udp", s), Timeout: f.timeout, UDPSize: dnsSizeMax}
	m, _, err := c.ExchangeContext(ctx, req, s.String())
	if err == nil && m.Truncated || errors.Is(err, dns.ErrBuf) {
		c.Net = network("tcp", s)
		whole, _, tcpErr := c.ExchangeContext(ctx, req, s.String())
		if tcpErr == nil || err != nil {
			m, err = whole, tcpErr
		} // else a part is better than nothing, and a server is not dead because a firewall knows DNS by UDP only
	}
	if err == nil && m.Rcode == dns.RcodeFormatError && req.IsEdns0() != nil {
		plain := req.Copy() // a server that predates EDNS
		plain.Extra = nil
		c.Net = network("udp", s)
		m, _, err = c.ExchangeContext(ctx, plain, s.String())
	}
	return m, err
}

func (f *forwarder) rest(s netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.After(f.rests[s].Add(time.Minute)) {
		f.log.Info("name server does not answer", "server", s.String(), "error", err)
	}
	f.rests[s] = now.Add(upstreamRest)
}
