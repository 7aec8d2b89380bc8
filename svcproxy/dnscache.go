package svcproxy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxCached and maxCachedBytes bound the cache; an answer takes about 300 bytes. One that is larger than maxCachedAnswer
	// is not kept.
	maxCached       = 2048
	maxCachedBytes  = 2 << 20
	maxCachedAnswer = 8 << 10
	// An answer is kept for as long as its records say, within these bounds; a refusal for at most cacheRefusal.
	cacheMin, cacheMax = time.Second, time.Hour
	cacheRefusal       = 30 * time.Second
	// staleFor is how much longer it may be used while no upstream server answers, and staleTTL the TTL that clients get.
	staleFor = 24 * time.Hour
	staleTTL = 30
)

// dnsCache remembers upstream answers, packed. When it is full, who has filled it makes room first, so that a client that
// asks for plenty of names does not take away what others rely on while there is no uplink.
type dnsCache struct {
	mu       sync.Mutex
	max      int // entries
	maxBytes int // of names and answers together
	bytes    int
	m        map[question]cached
	by       map[netip.Addr]int // bytes by client that asked first
}

type cached struct {
	wire    []byte
	client  netip.Addr
	stored  time.Time
	expires time.Time
}

func newDNSCache(max, maxBytes int) *dnsCache {
	return &dnsCache{max: max, maxBytes: maxBytes, m: map[question]cached{}, by: map[netip.Addr]int{}}
}

func cachedSize(q question, e cached) int { return len(q.name) + len(e.wire) }

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

// put remembers an answer or a refusal that client was the first to ask for; failures are not remembered.
func (c *dnsCache) put(q question, m *dns.Msg, client netip.Addr, now time.Time) {
	life, ok := lifetime(m)
	if !ok {
		return
	}
	wire, err := m.Pack()
	if err != nil || len(wire) > maxCachedAnswer {
		return
	}
	e := cached{wire: wire, client: shareKey(client), stored: now, expires: now.Add(life)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(q)
	for len(c.m) > 0 && (len(c.m) >= c.max || c.bytes+cachedSize(q, e) > c.maxBytes) {
		c.evict(now)
	}
	c.m[q] = e
	c.bytes += cachedSize(q, e)
	c.by[e.client] += cachedSize(q, e)
}

// drop forgets an entry. The caller holds mu.
func (c *dnsCache) drop(q question) {
	e, ok := c.m[q]
	if !ok {
		return
	}
	delete(c.m, q)
	c.bytes -= cachedSize(q, e)
	if c.by[e.client] -= cachedSize(q, e); c.by[e.client] <= 0 {
		delete(c.by, e.client)
	}
}

// evict drops one of the client that has most: of a few, the one that expires first. The caller holds mu.
func (c *dnsCache) evict(now time.Time) {
	var heaviest netip.Addr
	for client, n := range c.by {
		if n > c.by[heaviest] {
			heaviest = client
		}
	}
	var first question
	seen := 0
	for q, e := range c.m { // in random order
		if e.client != heaviest {
			continue
		}
		if seen == 0 || e.expires.Before(c.m[first].expires) {
			first = q
		}
		if seen++; seen == 8 || now.After(e.expires.Add(staleFor)) {
			break
		}
	}
	c.drop(first)
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
