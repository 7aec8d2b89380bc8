package svcproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"petrel.dev/petrel/internal/contain"
)

const (
	// A flow that had a question and at most one answer is forgotten after udpShort without a datagram, a longer talk
	// after udpLong: the figures of Linux' connection tracking, which kube-proxy's users have.
	udpShort = 30 * time.Second
	udpLong  = 120 * time.Second
	// maxFlows bounds flows of one listener, and maxFlowsAll those of the proxy, which clients share: each has a socket and
	// a goroutine.
	maxFlows    = 1024
	maxFlowsAll = 4096
)

// datagrams are buffers for one UDP datagram of any size. They are taken when one has arrived, not to wait for one, so
// thousands of idle sockets need none.
var datagrams = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// udpListener receives for one address and port and keeps a flow for each client.
type udpListener struct {
	p  *Proxy
	c  *net.UDPConn
	to atomic.Pointer[target]

	mu     sync.Mutex
	flows  map[netip.AddrPort]*udpFlow // by client
	closed bool
}

// udpFlow is one client's talk with one endpoint.
type udpFlow struct {
	l        *udpListener
	client   netip.AddrPort
	endpoint netip.AddrPort
	c        *net.UDPConn // connected to endpoint
	last     atomic.Int64 // time of the last datagram, unix nanoseconds
	up, down atomic.Uint32
}

func (p *Proxy) listenUDP(addr netip.AddrPort, to *target) (listener, error) {
	lc := net.ListenConfig{Control: freeBind}
	c, err := lc.ListenPacket(context.Background(), network("udp", addr), addr.String())
	if err != nil {
		return nil, err
	}
	l := &udpListener{p: p, c: c.(*net.UDPConn), flows: map[netip.AddrPort]*udpFlow{}}
	l.to.Store(to)
	p.work.Add(1)
	go l.serve()
	return l, nil
}

func (l *udpListener) current() *target { return l.to.Load() }
func (l *udpListener) at() uint16       { return portOf(l.c.LocalAddr()) }

// retarget also cuts the flows to endpoints that left, and of clients that are not admitted any more.
func (l *udpListener) retarget(to *target) {
	l.to.Store(to)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.flows {
		if _, still := slices.BinarySearchFunc(to.endpoints, f.endpoint, netip.AddrPort.Compare); !still || !to.admits(f.client.Addr()) {
			l.drop(f)
		}
	}
}

func (l *udpListener) close() {
	_ = l.c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, f := range l.flows {
		l.drop(f)
	}
}

// drop forgets a flow; its goroutine ends. The caller holds mu.
func (l *udpListener) drop(f *udpFlow) {
	if l.flows[f.client] == f {
		delete(l.flows, f.client)
		l.p.forgetFlow(f)
		_ = f.c.Close()
	}
}

func (l *udpListener) serve() {
	defer l.p.work.Done()
	raw, err := l.c.SyscallConn()
	if err != nil {
		return
	}
	for {
		if err := waitReadable(raw); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error that the kernel reports here; it has been consumed
		}
		buf := datagrams.Get().(*[]byte)
		n, client, err := l.c.ReadFromUDPAddrPort(*buf)
		if err == nil {
			contain.Go(l.p.log, "svcproxy/udp", "a datagram", func() {
				l.forward(netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), (*buf)[:n])
			})
		}
		datagrams.Put(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (l *udpListener) forward(client netip.AddrPort, data []byte) {
	f := l.flow(client)
	if f == nil {
		return
	}
	f.last.Store(time.Now().UnixNano())
	f.up.Add(1)
	if _, err := f.c.Write(data); err != nil {
		f.failed(err)
	}
}

// flow finds the client's flow or starts one; nil when that is impossible.
func (l *udpListener) flow(client netip.AddrPort) *udpFlow {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flows[client]; f != nil || l.closed {
		return f
	}
	to, now := l.to.Load(), time.Now()
	if !to.admits(client.Addr()) {
		return nil
	}
	if len(l.flows) >= maxFlows {
		l.evict()
	}
	if !l.p.flowShares.take(client.Addr()) && (!l.evictOf(client.Addr()) || !l.p.flowShares.take(client.Addr())) {
		return nil
	}
	g := l.p.group(to.group)
	endpoint := g.sequence(client.Addr(), to, &l.p.bad, now, 1)[0]
	c, err := net.DialUDP(network("udp", endpoint), nil, net.UDPAddrFromAddrPort(endpoint))
	if err != nil {
		l.p.flowShares.give(client.Addr())
		l.p.stats.dialFailed.Add(1)
		l.p.bad.add(endpoint, now)
		return nil // the client sends again
	}
	g.bind(client.Addr(), to, endpoint, now)
	f := &udpFlow{l: l, client: client, endpoint: endpoint, c: c}
	f.last.Store(now.UnixNano())
	l.flows[client] = f
	l.p.keepFlow(f)
	l.p.stats.udpTotal.Add(1)
	l.p.work.Add(1)
	go f.serve()
	return f
}

// evict makes room in the listener: of a few flows, one of the client that has most goes, the one that has been silent for
// longest. The caller holds mu.
func (l *udpListener) evict() {
	var worst *udpFlow
	most, seen := 0, 0
	for _, f := range l.flows { // in random order
		n := l.p.flowsOf(f.client.Addr())
		if worst == nil || n > most || n == most && f.last.Load() < worst.last.Load() {
			worst, most = f, n
		}
		if seen++; seen == 8 {
			break
		}
	}
	if worst != nil {
		l.drop(worst)
	}
}

// evictOf ends, of a few flows of one client, the one that has been silent for longest, and reports whether there is room
// now. For a flow of another listener that takes a moment: the client sends again. The caller holds mu.
func (l *udpListener) evictOf(client netip.Addr) bool {
	oldest := l.p.oldestFlow(client)
	switch {
	case oldest == nil:
		return false
	case oldest.l == l:
		l.drop(oldest)
		return true
	}
	_ = oldest.c.Close() // its own goroutine forgets it
	return false
}

// keepFlow and forgetFlow keep the list of flows by client.
func (p *Proxy) keepFlow(f *udpFlow) {
	key := shareKey(f.client.Addr())
	p.stats.udpFlows.Add(1)
	p.flowMu.Lock()
	defer p.flowMu.Unlock()
	if p.flows[key] == nil {
		p.flows[key] = map[*udpFlow]struct{}{}
	}
	p.flows[key][f] = struct{}{}
}

func (p *Proxy) forgetFlow(f *udpFlow) {
	key := shareKey(f.client.Addr())
	p.stats.udpFlows.Add(-1)
	p.flowShares.give(f.client.Addr())
	p.flowMu.Lock()
	defer p.flowMu.Unlock()
	if delete(p.flows[key], f); len(p.flows[key]) == 0 {
		delete(p.flows, key)
	}
}

func (p *Proxy) flowsOf(client netip.Addr) int {
	p.flowMu.Lock()
	defer p.flowMu.Unlock()
	return len(p.flows[shareKey(client)])
}

func (p *Proxy) oldestFlow(client netip.Addr) *udpFlow {
	p.flowMu.Lock()
	defer p.flowMu.Unlock()
	var oldest *udpFlow
	seen := 0
	for f := range p.flows[shareKey(client)] { // in random order
		if oldest == nil || f.last.Load() < oldest.last.Load() {
			oldest = f
		}
		if seen++; seen == 8 {
			break
		}
	}
	return oldest
}

// serve carries answers back until the flow is idle or dropped.
func (f *udpFlow) serve() {
	defer f.l.p.work.Done()
	defer f.end()
	contain.Go(f.l.p.log, "svcproxy/udp", f.endpoint.String(), f.relay)
}

func (f *udpFlow) relay() {
	raw, err := f.c.SyscallConn()
	if err != nil {
		return
	}
	for {
		_ = f.c.SetReadDeadline(time.Unix(0, f.last.Load()).Add(f.idle()))
		err := waitReadable(raw)
		if isTimeout(err) {
			if time.Since(time.Unix(0, f.last.Load())) >= f.idle() {
				return
			}
			continue
		}
		if err == nil {
			err = f.answer()
		}
		if err != nil && !isTimeout(err) {
			f.failed(err)
			return
		}
	}
}

func (f *udpFlow) idle() time.Duration {
	if f.up.Load() > 1 && f.down.Load() > 0 {
		return udpLong
	}
	return udpShort
}

func (f *udpFlow) answer() error {
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	n, err := f.c.Read(*buf)
	if err != nil {
		return err
	}
	f.last.Store(time.Now().UnixNano())
	f.down.Add(1)
	_, err = f.l.c.WriteToUDPAddrPort((*buf)[:n], f.client)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // a client that is gone is no reason to think ill of the endpoint
}

func (f *udpFlow) end() {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	f.l.drop(f)
}

// failed drops the flow; when the endpoint refused (nobody listens there), the client's next datagram tries another.
func (f *udpFlow) failed(err error) {
	if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) {
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) {
		f.l.p.stats.dialFailed.Add(1)
		f.l.p.bad.add(f.endpoint, time.Now())
	}
	f.end()
}

// waitReadable waits until a read would not block, or a read deadline or error came first.
func waitReadable(c syscall.RawConn) error {
	var result error
	err := c.Read(func(fd uintptr) bool {
		result = peek(fd)
		return !errors.Is(result, syscall.EAGAIN)
	})
	if err != nil {
		return err
	}
	return result
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func isAddrInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func isPermission(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}
