package svcproxy

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/internal/contain"
)

// Config is what a Proxy needs to know of its node and cluster.
type Config struct {
	// Node is this node's name, as in Endpoint.Node.
	Node string
	// NodeAddrs returns the addresses for NodePort, LoadBalancer and host ports. It is asked at every Apply and
	// Refresh. Nil: all addresses of the node's interfaces.
	NodeAddrs func() []netip.Addr
	// ServiceCIDRs are the cluster's service networks. Reverse DNS names of addresses in them are answered here alone, and they
	// are never node addresses.
	ServiceCIDRs []netip.Prefix
	// ClusterDomain is the DNS zone of the cluster, "cluster.local" if empty.
	ClusterDomain string
	// DNSAddr is where the cluster's DNS listens, UDP and TCP, port 53. Invalid: no DNS.
	DNSAddr netip.Addr
	// Upstream servers answer for names outside the cluster. Empty: those of ResolvConf, read again when it changes.
	Upstream []netip.AddrPort
	// ResolvConf is the host's resolver configuration; "/etc/resolv.conf" if empty.
	ResolvConf string
	// Sockets, if not nil, is called by Run with all open sockets in the ServiceCIDRs, before the first is opened and after
	// each change. It lets in what is sent to them and leads clients to those that are at another port than their own; an
	// error says that it cannot, and why.
	Sockets func([]Socket) error
	Log     *slog.Logger

	upstreamTimeout time.Duration // 0: the default; tests are less patient
	dnsSilence      time.Duration // 0: the default; tests are more patient
	budget          budget        // zero: that of the machine
}

// Proxy is the service proxy and DNS of a node. Apply, Refresh, Stats and Problems may be called at any time, also before
// and after Run.
type Proxy struct {
	cfg Config
	log *slog.Logger
	dns *dnsServer // nil without DNSAddr

	kick  chan struct{} // capacity 1: something for Run to do
	inMu  sync.Mutex
	table *Table // as last applied; nil before

	// Owned by Run.
	listeners map[listenKey]listener
	published []Socket        // what Config.Sockets was last called with, successfully
	leads     error           // why clients cannot be led to sockets that are at another port
	ctx       context.Context // Run's, for dials

	work   sync.WaitGroup // goroutines of listeners, connections and flows
	connMu sync.Mutex
	conns  map[*net.TCPConn]struct{} // nil when Run is not running
	bad    suspects

	groupMu sync.Mutex
	groups  map[groupKey]*group

	problemMu sync.Mutex
	problems  map[string]Problem

	connShares *shares // TCP connections of clients
	flowShares *shares // UDP flows of clients
	flowMu     sync.Mutex
	flows      map[netip.Addr]map[*udpFlow]struct{} // by client, as flowShares counts it

	failed atomic.Bool // the last reconcile panicked: what is open is not what the table asks for

	stats counters
}

// listener is an open socket of the proxy.
type listener interface {
	current() *target
	at() uint16 // the port that it has
	retarget(*target)
	close()
}

const (
	retryFirst = time.Second
	retryMax   = time.Minute
)

// New returns a Proxy. It opens nothing before Run.
func New(cfg Config) *Proxy {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{
		cfg: cfg, log: cfg.Log,
		kick:      make(chan struct{}, 1),
		listeners: map[listenKey]listener{},
		groups:    map[groupKey]*group{},
		problems:  map[string]Problem{},
	}
	if cfg.budget == (budget{}) {
		cfg.budget = machineBudget()
	}
	p.connShares = newShares("connections", cfg.budget.conns, cfg.Log)
	p.flowShares = newShares("UDP flows", cfg.budget.flows, cfg.Log)
	p.flows = map[netip.Addr]map[*udpFlow]struct{}{}
	if cfg.NodeAddrs == nil {
		p.cfg.NodeAddrs = interfaceAddrs
	}
	if cfg.DNSAddr.IsValid() {
		p.dns = newDNSServer(p.cfg, &p.stats, p.Refresh)
	}
	return p
}

// Apply makes t what is served, in place of everything before. It returns at once; Run does the work. The Proxy keeps t
// and its parts: the caller must not change them afterwards.
func (p *Proxy) Apply(t Table) {
	p.inMu.Lock()
	p.table = &t
	p.inMu.Unlock()
	p.Refresh()
}

// Refresh looks at the node's addresses again, and tries again what failed. Call it when the node's addresses changed.
func (p *Proxy) Refresh() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Run serves until ctx is done, then closes everything, connections included, and returns nil. It may run again.
func (p *Proxy) Run(ctx context.Context) error {
	p.ctx = ctx
	p.connMu.Lock()
	p.conns = map[*net.TCPConn]struct{}{}
	p.connMu.Unlock()
	defer p.shutdown()

	retry := time.NewTimer(time.Hour)
	retry.Stop()
	wait := retryFirst
	for {
		again := true // after a panic, too: a fault over one table must not end the others' traffic
		err := contain.Do(p.log, "svcproxy/table", "the table", func() error { again = p.reconcile(); return nil })
		p.failed.Store(err != nil)
		if again {
			retry.Reset(wait)
		} else {
			retry.Stop()
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.kick:
			wait = retryFirst
		case <-retry.C:
			wait = min(2*wait, retryMax)
		}
	}
}

func (p *Proxy) shutdown() {
	for _, key := range slices.Collect(maps.Keys(p.listeners)) {
		p.listeners[key].close()
		delete(p.listeners, key)
	}
	if p.dns != nil {
		p.dns.close()
	}
	p.abortAll()
	p.work.Wait()
	p.stats.listeners.Store(0)
}

// reconcile brings the open sockets to what the table asks for, and reports whether something failed that time may heal.
func (p *Proxy) reconcile() (again bool) {
	p.inMu.Lock()
	table := p.table
	p.inMu.Unlock()
	found := map[string]Problem{}
	if p.dns != nil {
		again = p.dns.listen(found)
	}
	if table == nil {
		again = p.publish(found) || again
		p.settle(found)
		return again
	}
	wanted, conflicts := plan(table, p.cfg.Node, p.nodeAddrs(), p.reserved(), p.isService, p.ownerOf)
	for _, c := range conflicts {
		reason := "the Service or pod " + c.winner + " has this address and port already"
		if c.winner == serviceNetwork {
			reason = "an external IP must not be an address of the service network, which the hub gives out; take it out of spec.externalIPs"
		}
		note(found, c.key, c.loser, reason)
	}
	p.close(wanted)
	for key, to := range wanted {
		if l := p.listeners[key]; l != nil {
			l.retarget(to)
			continue
		}
		l, err := p.open(key, to)
		if err != nil {
			note(found, key, to.owner(), explainListen(key, err).Error())
			again = true
			continue
		}
		p.listeners[key] = l
	}
	p.forgetGroups(wanted)
	if p.dns != nil {
		p.dns.zone.Store(newZone(table, p.cfg.ClusterDomain, p.cfg.ServiceCIDRs))
	}
	p.stats.listeners.Store(int64(len(p.listeners)))
	again = p.publish(found) || again
	p.settle(found)
	p.stats.applied.Add(1) // last: who waits for it reads problems and listeners of this table
	return again
}

// close shuts the sockets that nothing asks for. One whose port moved to another Service stays open and is retargeted.
func (p *Proxy) close(wanted map[listenKey]*target) {
	for key, l := range p.listeners {
		if wanted[key] == nil {
			l.close()
			delete(p.listeners, key)
		}
	}
}

// open opens a socket. In the service networks, where nobody else has any business, a program that has the port on all
// addresses of the node is in the way only of the port: the socket gets another one, and clients are led there.
func (p *Proxy) open(key listenKey, to *target) (listener, error) {
	listen := p.listenTCP
	if key.proto == UDP {
		listen = p.listenUDP
	}
	l, err := listen(key.addr, to)
	if err != nil && isAddrInUse(err) && p.cfg.Sockets != nil && p.isService(key.addr.Addr()) {
		return listen(netip.AddrPortFrom(key.addr.Addr(), 0), to)
	}
	return l, err
}

func (p *Proxy) ownerOf(key listenKey) string {
	if l := p.listeners[key]; l != nil {
		return l.current().owner()
	}
	return ""
}

// reserved are the sockets of the DNS: a Service for it in the table is a name, not a listener.
func (p *Proxy) reserved() map[listenKey]bool {
	if p.dns == nil {
		return nil
	}
	a := netip.AddrPortFrom(p.cfg.DNSAddr, dnsPort)
	return map[listenKey]bool{{TCP, a}: true, {UDP, a}: true}
}

// nodeAddrs are the node's addresses and its loopback, which users of one machine expect node ports on.
func (p *Proxy) nodeAddrs() []netip.Addr {
	var out []netip.Addr
	for _, a := range append(p.cfg.NodeAddrs(), netip.MustParseAddr("127.0.0.1")) {
		if a = a.Unmap(); !slices.Contains(out, a) && !p.isService(a) {
			out = append(out, a)
		}
	}
	return out
}

func (p *Proxy) isService(a netip.Addr) bool {
	return slices.ContainsFunc(p.cfg.ServiceCIDRs, func(c netip.Prefix) bool { return c.Contains(a) })
}

func interfaceAddrs() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out
}

// group returns the memory of a Service port, which outlives changes of its endpoints.
func (p *Proxy) group(key groupKey) *group {
	p.groupMu.Lock()
	defer p.groupMu.Unlock()
	g := p.groups[key]
	if g == nil {
		g = newGroup()
		p.groups[key] = g
	}
	return g
}

func (p *Proxy) forgetGroups(wanted map[listenKey]*target) {
	keep := make(map[groupKey]bool, len(wanted))
	for _, to := range wanted {
		keep[to.group] = true
	}
	p.groupMu.Lock()
	defer p.groupMu.Unlock()
	maps.DeleteFunc(p.groups, func(k groupKey, _ *group) bool { return !keep[k] })
}
