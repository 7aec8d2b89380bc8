package svcproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/internal/contain"
)

const (
	// dialFirst is how long an endpoint may take to answer while there are others to try; dialLast, the last one.
	dialFirst = 2 * time.Second
	dialLast  = 10 * time.Second
	// dialAttempts bounds how many endpoints one connection tries.
	dialAttempts = 4
)

// keepAlive finds ends that vanished (a node without power), so that their connections do not stay without end.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// tcpListener accepts for one address and port.
type tcpListener struct {
	p  *Proxy
	l  *net.TCPListener
	to atomic.Pointer[target]
}

func (p *Proxy) listenTCP(addr netip.AddrPort, to *target) (listener, error) {
	lc := net.ListenConfig{Control: freeBind, KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(false) // the kernel splices plain TCP only
	l, err := lc.Listen(context.Background(), network("tcp", addr), addr.String())
	if err != nil {
		return nil, err
	}
	t := &tcpListener{p: p, l: l.(*net.TCPListener)}
	t.to.Store(to)
	p.work.Add(1)
	go t.serve()
	return t, nil
}

func network(proto string, addr netip.AddrPort) string {
	if addr.Addr().Is4() {
		return proto + "4"
	}
	return proto + "6"
}

func (t *tcpListener) retarget(to *target) { t.to.Store(to) }
func (t *tcpListener) current() *target    { return t.to.Load() }
func (t *tcpListener) close()              { _ = t.l.Close() }
func (t *tcpListener) at() uint16          { return portOf(t.l.Addr()) }

// portOf is the port of a socket's own address.
func portOf(a net.Addr) uint16 {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return ap.Port()
	}
	return 0
}

func (t *tcpListener) serve() {
	defer t.p.work.Done()
	var pause time.Duration
	for {
		c, err := t.l.AcceptTCP()
		if err == nil {
			pause = 0
			t.p.accepted(c, t.to.Load())
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of file descriptors, or a client that was gone before we looked: go on, slowly if it keeps happening.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		t.p.log.Debug("service connection not accepted", "listener", t.l.Addr().String(), "error", err)
		time.Sleep(pause)
	}
}

// accepted starts carrying a connection, or resets it when its client has its share.
func (p *Proxy) accepted(c *net.TCPConn, to *target) {
	client := remoteAddr(c)
	if !to.admits(client) || !p.connShares.take(client) {
		abort(c)
		return
	}
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		defer p.connShares.give(client)
		defer c.Close() // on every way out, a contained panic's too
		contain.Go(p.log, "svcproxy/tcp", to.owner(), func() { p.serveConn(c, to) })
	}()
}

// serveConn carries one connection to an endpoint and back.
func (p *Proxy) serveConn(client *net.TCPConn, to *target) {
	if !p.track(client) {
		return
	}
	defer p.untrack(client)
	p.stats.tcpTotal.Add(1)
	if to.health != nil {
		p.serveHealth(client, to.health)
		return
	}
	server, err := p.dial(client, to)
	if err != nil {
		p.stats.tcpFailed.Add(1)
		p.log.Debug("no endpoint took the connection", "service", to.owner(), "error", err)
		abort(client)
		return
	}
	if !p.track(server) {
		abort(client)
		return
	}
	defer p.untrack(server)
	defer server.Close()

	var up sync.WaitGroup
	up.Add(1)
	go func() {
		defer up.Done()
		contain.Go(p.log, "svcproxy/tcp", to.owner(), func() { p.pump(server, client) })
	}()
	p.pump(client, server)
	up.Wait()
}

// dial tries endpoints until one answers.
func (p *Proxy) dial(client *net.TCPConn, to *target) (*net.TCPConn, error) {
	from := remoteAddr(client)
	g := p.group(to.group)
	tries := g.sequence(from, to, &p.bad, time.Now(), dialAttempts)
	var errs []error
	for i, e := range tries {
		d := net.Dialer{Timeout: dialFirst, KeepAliveConfig: keepAlive}
		if i == len(tries)-1 {
			d.Timeout = dialLast
		}
		c, err := d.DialContext(p.ctx, network("tcp", e), e.String())
		if err == nil {
			p.bad.clear(e)
			g.bind(from, to, e, time.Now())
			return c.(*net.TCPConn), nil
		}
		p.stats.dialFailed.Add(1)
		p.bad.add(e, time.Now())
		errs = append(errs, err)
		if p.ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// pump carries one direction until its source ends. An orderly end is passed on as such (half-close); a reset or a
// vanished end resets the other side, so that a broken download does not look complete.
func (p *Proxy) pump(dst, src *net.TCPConn) {
	n, err := dst.ReadFrom(src) // both are TCP: the kernel splices, no byte comes up here
	p.stats.tcpBytes.Add(uint64(n))
	if err == nil || errors.Is(err, io.EOF) {
		if dst.CloseWrite() == nil {
			return
		}
	}
	abort(src)
	abort(dst)
}

// abort resets a connection.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// track remembers an open connection, so that the end of Run can end it. False: it has come too late and was aborted.
func (p *Proxy) track(c *net.TCPConn) bool {
	p.connMu.Lock()
	defer p.connMu.Unlock()
	if p.conns == nil {
		abort(c)
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) untrack(c *net.TCPConn) {
	p.connMu.Lock()
	defer p.connMu.Unlock()
	delete(p.conns, c)
}

// abortAll ends all connections and lets no new ones in.
func (p *Proxy) abortAll() {
	p.connMu.Lock()
	defer p.connMu.Unlock()
	for c := range p.conns {
		abort(c)
	}
	p.conns = nil
}

var errListen = errors.New("cannot listen")

// explainListen says what a failed bind means to the owner of the machine.
func explainListen(key listenKey, err error) error {
	switch {
	case isAddrInUse(err):
		return fmt.Errorf("%w on %v: another program on this node has the port; stop it, let it listen on its own address only, or change the port of the Service or pod", errListen, key)
	case isPermission(err):
		return fmt.Errorf("%w on %v: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE", errListen, key)
	}
	return fmt.Errorf("%w on %v: %w", errListen, key, err)
}
