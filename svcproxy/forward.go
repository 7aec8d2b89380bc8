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

	"petrel.dev/petrel/internal/contain"
)

const (
	upstreamTimeout = 2 * time.Second
	// upstreamRest is how long servers that did not answer are left alone. While all are, questions fail at once, but
	// for one at a time that tries whether the world is back.
	upstreamRest = 5 * time.Second
	// maxPending bounds the questions that were sent upstream, each with a goroutine and a socket, and maxWaiting the
	// requests that wait for their answers, of at most about 1 KiB each. Clients share both.
	maxPending = 256
	maxWaiting = 2048
)

// forwarder resolves names outside the cluster with the host's servers, through a cache.
type forwarder struct {
	log     *slog.Logger
	stats   *counters
	servers *serverList
	cache   *dnsCache
	timeout time.Duration // for one server's answer; all together get twice that
	asked   *shares       // questions that were sent upstream, by the client that asked first
	waiting *shares       // requests that wait, by client

	mu      sync.Mutex
	pending map[question]*pendingQuestion
	health  upstreamHealth
}

// question is what makes two requests the same.
type question struct {
	name            string // lower case
	qtype           uint16
	dnssec, noCheck bool
}

// pendingQuestion is one that was sent upstream; others who ask the same wait for it. So a name server that asks us in
// return (a loop in the host's configuration) waits for itself once, instead of multiplying. They wait as entries of a
// list: a request costs no goroutine.
type pendingQuestion struct {
	waiters map[asker]func(*dns.Msg) // guarded by the forwarder's mu; a nil message: failed
}

func newForwarder(cfg Config, stats *counters) *forwarder {
	return &forwarder{log: cfg.Log, stats: stats, servers: newServerList(cfg), cache: newDNSCache(maxCached, maxCachedBytes),
		timeout: cmp.Or(cfg.upstreamTimeout, upstreamTimeout),
		asked:   newShares("DNS questions for upstream", maxPending, cfg.Log),
		waiting: newShares("DNS requests that wait for upstream", maxWaiting, cfg.Log),
		pending: map[question]*pendingQuestion{}}
}

func questionOf(req *dns.Msg) question {
	q := question{name: strings.ToLower(req.Question[0].Name), qtype: req.Question[0].Qtype, noCheck: req.CheckingDisabled}
	if opt := req.IsEdns0(); opt != nil {
		q.dnssec = opt.Do()
	}
	return q
}

// resolve answers a request: from the cache, from upstream, or, when upstream is silent, with what the cache last knew
// (RFC 8767). If all fails, SERVFAIL. It calls then at most once, now or later: not at all for a request over UDP that is
// there already, or whose client has too many.
func (f *forwarder) resolve(req *dns.Msg, from asker, then func(*dns.Msg)) {
	q := questionOf(req)
	if m := f.cache.get(q, time.Now(), false); m != nil {
		f.stats.dnsCached.Add(1)
		then(addressed(m, req))
		return
	}
	f.ask(q, from, func(m *dns.Msg) {
		if m == nil {
			if m = f.cache.get(q, time.Now(), true); m == nil {
				then(refusal(req, dns.RcodeServerFailure))
				return
			}
			f.stats.dnsCached.Add(1)
		}
		then(addressed(m, req))
	})
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

// ask sends a question upstream, once however many want to know, and hands them the answer. Nil: no answer.
func (f *forwarder) ask(q question, from asker, then func(*dns.Msg)) {
	fate := f.enlist(q, from, then)
	if fate == noAnswer || fate == crowded && from.tcp {
		then(nil)
	}
}

// fate is what becomes of a request.
type fate int

const (
	waits    fate = iota // its answer will come, or has been asked for already
	noAnswer             // nobody can answer now
	crowded              // its client has too many requests in hand
)

// enlist puts a request on the list of those that wait for its question, which it sends if it is the first.
func (f *forwarder) enlist(q question, from asker, then func(*dns.Msg)) fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pending[q]
	if p != nil && p.waiters[from] != nil {
		return waits // the client has lost patience, and gets the one answer
	}
	if p == nil {
		servers := f.usable(time.Now())
		if len(servers) == 0 || !f.asked.take(from.client()) {
			return noAnswer
		}
		if !f.waiting.take(from.client()) {
			f.asked.give(from.client())
			return crowded
		}
		p = &pendingQuestion{waiters: map[asker]func(*dns.Msg){from: then}}
		f.pending[q] = p
		go f.settle(q, p, servers, from.client())
		return waits
	}
	if !f.waiting.take(from.client()) {
		return crowded
	}
	p.waiters[from] = then
	return waits
}

// settle gets a question's answer and hands it to all who wait for it.
func (f *forwarder) settle(q question, p *pendingQuestion, servers []netip.AddrPort, first netip.Addr) {
	var reply *dns.Msg
	contain.Go(f.log, "svcproxy/dns", "an answer", func() {
		if reply = f.exchange(q, servers); reply != nil {
			f.cache.put(q, reply, first, time.Now())
		}
	})
	f.mu.Lock()
	delete(f.pending, q)
	f.mu.Unlock()
	f.asked.give(first)
	for from, then := range p.waiters { // nobody adds to them any more
		contain.Go(f.log, "svcproxy/dns", "an answer", func() { then(reply) })
		f.waiting.give(from.client())
	}
}

// usable lists the servers that are worth asking. If all rest, one question at a time may try them. The caller holds mu.
func (f *forwarder) usable(now time.Time) []netip.AddrPort {
	all := f.servers.current(now)
	awake := f.health.awake(all, now)
	if len(awake) > 0 || f.health.probing() {
		return awake
	}
	for _, s := range all {
		f.probe(s)
	}
	return all
}

// probe asks a server what every server can answer at once, to know whether it is there: a name that it does not answer
// for may be slow by its owner's will, and must not cost others the server. The caller holds mu.
func (f *forwarder) probe(s netip.AddrPort) {
	if !f.health.begin(s) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), f.timeout)
		defer cancel()
		req := new(dns.Msg)
		req.SetQuestion(".", dns.TypeNS)
		var err error
		contain.Go(f.log, "svcproxy/dns", "a probe", func() {
			c := dns.Client{Net: network("udp", s), Timeout: f.timeout, UDPSize: dnsSizeMax}
			_, _, err = c.ExchangeContext(ctx, req, s.String())
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.health.probed(s)
		f.note(s, err, true)
	}()
}

// note keeps what came of asking a server. Silence counts only when a probe found it, or the network refused. The caller
// holds mu.
func (f *forwarder) note(s netip.AddrPort, err error, probe bool) {
	now := time.Now()
	switch {
	case err == nil || errors.Is(err, dns.ErrBuf):
		f.health.answered(s, now)
	case !probe && isTimeout(err):
		f.probe(s)
	default:
		if f.health.rest(s, now) {
			f.log.Info("name server does not answer", "server", s.String(), "error", err)
		}
	}
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
		asked := time.Now()
		m, err := f.exchangeOne(ctx, req, s)
		f.mu.Lock()
		if err == nil || !f.health.answeredSince(s, asked) { // else it answers others, and this name is slow
			f.note(s, err, false)
		}
		f.mu.Unlock()
		if err != nil {
			continue
		}
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
