package svcproxy

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"petrel.dev/petrel/internal/contain"
)

const (
	// maxDNSConns bounds the TCP connections of the DNS. Each has one question in hand, of at most 64 KiB.
	maxDNSConns = 128
	// dnsSilence is for how long a client of a TCP connection may say nothing.
	dnsSilence = 10 * time.Second
)

// dnsTCP answers questions over TCP.
type dnsTCP struct {
	d      *dnsServer
	server *dns.Server
	failed atomic.Bool
}

func (d *dnsServer) listenTCP(addr netip.AddrPort) (dnsSocket, error) {
	lc := net.ListenConfig{Control: freeBind}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), network("tcp", addr), addr.String())
	if err != nil {
		return nil, err
	}
	s := &dnsTCP{d: d}
	s.server = &dns.Server{Handler: s, ReadTimeout: cmp.Or(d.cfg.dnsSilence, dnsSilence), Listener: &fairListener{l.(*net.TCPListener), d.tcpConns}}
	go s.serve()
	return s, nil
}

func (s *dnsTCP) broken() bool { return s.failed.Load() }
func (s *dnsTCP) at() uint16   { return portOf(s.server.Listener.Addr()) }

func (s *dnsTCP) serve() {
	if err := s.server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.d.log.Error("cluster DNS socket failed", "error", err)
		s.failed.Store(true)
		s.d.kick()
	}
}

// close ends the server. Shutdown refuses one whose goroutine has not begun; closing the socket ends that as well.
func (s *dnsTCP) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.server.ShutdownContext(ctx)
	_ = s.server.Listener.Close()
}

// ServeDNS answers one question. It is called on the goroutine of the connection.
func (s *dnsTCP) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	from := asker{id: req.Id, tcp: true}
	if a, ok := w.RemoteAddr().(*net.TCPAddr); ok {
		from.addr = a.AddrPort()
	}
	answered := make(chan *dns.Msg, 1)
	contain.Go(s.d.log, "svcproxy/dns", "a question", func() {
		s.d.answer(req, from, func(m *dns.Msg) { answered <- m })
	})
	select {
	case m := <-answered:
		if err := w.WriteMsg(m); err != nil {
			s.d.log.Debug("DNS answer not delivered", "client", from.addr.String(), "error", err)
		}
	case <-time.After(3 * s.d.forward.timeout): // longer than upstream gets: only a contained panic leads here
		_ = w.Close()
	}
}

// fairListener gives each client its share of connections, and resets what is beyond it.
type fairListener struct {
	*net.TCPListener
	shares *shares
}

func (l *fairListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		client := remoteAddr(c)
		if !l.shares.take(client) {
			abort(c)
			continue
		}
		return &fairConn{TCPConn: c, end: sync.OnceFunc(func() { l.shares.give(client) })}, nil
	}
}

// fairConn gives its share back when it is closed.
type fairConn struct {
	*net.TCPConn
	end func()
}

func (c *fairConn) Close() error {
	defer c.end()
	return c.TCPConn.Close()
}

// remoteAddr is the address of a connection's other end, invalid when that is gone already.
func remoteAddr(c *net.TCPConn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
