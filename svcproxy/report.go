package svcproxy

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Problem is something that the table asks for and the node cannot do.
type Problem struct {
	Listener string    // for example "TCP 192.168.1.7:80"
	Service  string    // "namespace/name", or which pod's host port
	Reason   string    // for people
	Since    time.Time // when it was first seen
}

func note(found map[string]Problem, key listenKey, owner, reason string) {
	found[key.String()+" "+owner] = Problem{Listener: key.String(), Service: owner, Reason: reason}
}

// settle makes found the problems of now, and logs what is new and what is over.
func (p *Proxy) settle(found map[string]Problem) {
	p.problemMu.Lock()
	defer p.problemMu.Unlock()
	for id, f := range found {
		if old, known := p.problems[id]; known {
			f.Since = old.Since
		} else {
			f.Since = time.Now()
			p.log.Warn("service listener is not available", "listener", f.Listener, "service", f.Service, "reason", f.Reason)
		}
		found[id] = f
	}
	for id, old := range p.problems {
		if _, still := found[id]; !still {
			p.log.Info("service listener problem is over", "listener", old.Listener, "service", old.Service)
		}
	}
	p.problems = found
}

// Problems lists what cannot be served at the moment, sorted by listener.
func (p *Proxy) Problems() []Problem {
	p.problemMu.Lock()
	defer p.problemMu.Unlock()
	return slices.SortedFunc(maps.Values(p.problems), func(a, b Problem) int {
		return strings.Compare(a.Listener+" "+a.Service, b.Listener+" "+b.Service)
	})
}

// counters are the live figures behind Stats.
type counters struct {
	applied, tcpTotal, tcpFailed, dialFailed, tcpBytes, udpTotal atomic.Uint64
	dnsQueries, dnsForwarded, dnsCached, dnsFailed               atomic.Uint64
	listeners, udpFlows                                          atomic.Int64
}

// Stats is a snapshot of the proxy's figures, for metrics. All but the gauges count since the process started.
type Stats struct {
	Applied        uint64 // tables put in force
	Listeners      int    // gauge: open sockets, without DNS
	TCPActive      int    // gauge: connections being carried (both legs count as one)
	TCPConnections uint64 // accepted
	TCPFailed      uint64 // accepted, but no endpoint answered
	TCPBytes       uint64 // carried by connections that have ended, both directions
	UDPActive      int    // gauge: flows
	UDPFlows       uint64 // started
	EndpointErrors uint64 // dials or datagrams that an endpoint refused
	DNSQueries     uint64
	DNSForwarded   uint64 // sent upstream
	DNSCached      uint64 // answered from the cache
	DNSFailed      uint64 // answered with SERVFAIL
	DNSWaiting     int    // gauge: requests that wait for upstream
	// Refused: what clients wanted beyond their share.
	TCPRefused, UDPRefused, DNSRefused uint64
}

// Stats returns the figures of now.
func (p *Proxy) Stats() Stats {
	p.connMu.Lock()
	active := (len(p.conns) + 1) / 2
	p.connMu.Unlock()
	c := &p.stats
	s := Stats{
		Applied: c.applied.Load(), Listeners: int(c.listeners.Load()), TCPActive: active,
		TCPConnections: c.tcpTotal.Load(), TCPFailed: c.tcpFailed.Load(), TCPBytes: c.tcpBytes.Load(),
		UDPActive: int(c.udpFlows.Load()), UDPFlows: c.udpTotal.Load(), EndpointErrors: c.dialFailed.Load(),
		DNSQueries: c.dnsQueries.Load(), DNSForwarded: c.dnsForwarded.Load(), DNSCached: c.dnsCached.Load(),
		DNSFailed: c.dnsFailed.Load(),
	}
	_, s.TCPRefused = p.connShares.counts()
	_, s.UDPRefused = p.flowShares.counts()
	if p.dns != nil {
		for _, sh := range []*shares{p.dns.forward.asked, p.dns.forward.waiting, p.dns.tcpConns} {
			_, refused := sh.counts()
			s.DNSRefused += refused
		}
		s.DNSWaiting, _ = p.dns.forward.waiting.counts()
	}
	return s
}
