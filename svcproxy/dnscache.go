package svcproxy

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxCached bounds the cache; an answer takes about 300 bytes.
	maxCached = 2048
	// An answer is kept for as long as its records say, within these bounds; a refusal for at most cacheRefusal.
	cacheMin, cacheMax = time.Second, time.Hour
	cacheRefusal       = 30 * time.Second
	// staleFor is how much longer it may be used while no upstream server answers, and staleTTL what clients are told.
	staleFor = 24 * time.Hour
	staleTTL = 30
)

// dnsCache remembers upstream answers, packed.
type dnsCache struct {
	mu  sync.Mutex
	max int
	m   map[question]cached
}

type cached struct {
	wire    []byte
	stored  time.Time
	expires time.Time
}

func newDNSCache(max int) *dnsCache { return &dnsCache{max: max, m: map[question]cached{}} }

// get returns a copy with its TTLs counted down, or nil. With stale it also returns what has expired.
func (c *dnsCache) get(q question, now time.Time, stale bool) *dns.Msg {
	c.mu.Lock()
	e, ok := c.m[q]
	c.mu.Unlock()
	expired := now.After(e.expires)
	if !ok || expired && (!stale || now.After(e.expires.Add(staleFor))) {
		return nil
	}
	m := new(dns.Msg)
	if m.Unpack(e.wire) != nil {
		return nil
	}
	age := uint32(max(now.Sub(e.stored), 0) / time.Second)
	for _, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			h := rr.Header()
			switch {
			case h.Rrtype == dns.TypeOPT: // its TTL field is flags
			case expired:
				h.Ttl = staleTTL
			case h.Ttl > age:
				h.Ttl -= age
			default:
				h.Ttl = 1
			}
		}
	}
	return m
}

// put remembers an answer or a refusal; failures are not remembered.
func (c *dnsCache) put(q question, m *dns.Msg, now time.Time) {
	life, ok := lifetime(m)
	if !ok {
		return
	}
	wire, err := m.Pack()
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.m[q]; !known && len(c.m) >= c.max {
		c.evict(now)
	}
	c.m[q] = cached{wire: wire, stored: now, expires: now.Add(life)}
}

// evict drops, of a few entries, the one that expires first. The caller holds mu.
func (c *dnsCache) evict(now time.Time) {
	var first question
	seen := 0
	for q, e := range c.m { // in random order
		if seen == 0 || e.expires.Before(c.m[first].expires) {
			first = q
		}
		if seen++; seen == 8 || now.After(e.expires.Add(staleFor)) {
			break
		}
	}
	delete(c.m, first)
}

// lifetime is for how long a reply may be reused.
func lifetime(m *dns.Msg) (time.Duration, bool) {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0, false
	}
	life, found := cacheMax, false
	for _, rr := range m.Answer {
		life, found = min(life, time.Duration(rr.Header().Ttl)*time.Second), true
	}
	refused := m.Rcode == dns.RcodeNameError || !found
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok && refused {
			ttl := min(soa.Hdr.Ttl, soa.Minttl) // RFC 2308
			life, found = min(life, time.Duration(ttl)*time.Second), true
		}
	}
	if refused {
		if !found {
			return 0, false // a refusal without SOA must not be kept
		}
		life = min(life, cacheRefusal)
	}
	return max(life, cacheMin), true
}
