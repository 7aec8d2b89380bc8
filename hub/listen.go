package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"petrel.dev/petrel/hub/broker"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

const (
	// lobbyTimeout bounds the wait for a place in the lobby.
	lobbyTimeout = 10 * time.Second
	// handshakeTimeout bounds a TLS handshake: a client that connects and sends nothing holds no goroutine for long.
	handshakeTimeout = 10 * time.Second
)

// port is the hub's one port: it finishes the TLS handshake of each connection, hands those that asked for MQTT in it
// (ALPN) to the broker, and is the net.Listener of the API for all others.
type port struct {
	net.Listener
	config *tls.Config    // does not change
	mqtt   func(net.Conn) // takes the connection over; never nil
	log    *slog.Logger
	lobby  *lobby

	api  chan net.Conn // unbuffered: connections for Accept
	done chan struct{} // closed by Close, or when Run ends
	once sync.Once     // guards the closing of done
}

func newPort(l net.Listener, config *tls.Config, mqtt func(net.Conn), log *slog.Logger) *port {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	config = broker.ServerTLS(config)
	return &port{Listener: l, config: config, mqtt: mqtt, log: log, lobby: newLobby(), api: make(chan net.Conn), done: make(chan struct{})}
}

// Run accepts until ctx ends or the listener fails.
func (p *port) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.Close() })
	defer stop()
	defer p.Close()
	pause := 5 * time.Millisecond
	for {
		conn, err := p.Listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		var temporary interface{ Temporary() bool }
		if errors.As(err, &temporary) && temporary.Temporary() {
			// Out of file descriptors, usually: others will close theirs.
			p.log.Warn("connections cannot be accepted, will try again", "error", err, "pause", pause)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		if err != nil {
			return err
		}
		pause = 5 * time.Millisecond
		go contain.Go(p.log, "hub/connection", conn.RemoteAddr().String(), func() { p.greet(ctx, conn) })
	}
}

// greet does the TLS handshake on a new connection and hands it on. It owns raw until then.
func (p *port) greet(ctx context.Context, raw net.Conn) {
	guest := p.enter(ctx, raw)
	if guest == nil {
		raw.Close()
		p.log.Debug("connection refused: too many without credentials are waiting", "peer", raw.RemoteAddr())
		return
	}
	handed := false
	defer func() {
		if !handed {
			guest.Close() // also after a panic
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(guest, p.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		p.log.Debug("TLS handshake failed", "peer", raw.RemoteAddr(), "error", err)
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == wire.ALPN {
		if tcp, ok := raw.(*net.TCPConn); ok {
			// MQTT has its own sign of life. The kernel's, each 15 s, would be most of what an idle link carries.
			if err := tcp.SetKeepAlive(false); err != nil {
				p.log.Debug("TCP keepalive stays on", "peer", raw.RemoteAddr(), "error", err)
			}
		}
		guest.release() // the broker has bounds of its own
		handed = true
		// On a goroutine of its own: the handshake has made the stack of this one larger than a link needs for its whole life.
		go contain.Go(p.log, "hub/link", raw.RemoteAddr().String(), func() {
			defer conn.Close() // also after a panic
			p.mqtt(conn)
		})
		return
	}
	select {
	case p.api <- conn:
		handed = true
	case <-p.done:
	}
}

func (p *port) enter(ctx context.Context, raw net.Conn) *guest {
	ctx, cancel := context.WithTimeout(ctx, lobbyTimeout)
	defer cancel()
	return p.lobby.enter(ctx, raw)
}

// Accept implements net.Listener for the API's server.
func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.api:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// connContext stores a connection's guest in the context of its requests.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		if g, ok := t.NetConn().(*guest); ok {
			return withGuest(ctx, g)
		}
	}
	return ctx
}

// Close implements net.Listener.
func (p *port) Close() error {
	var err error
	p.once.Do(func() {
		close(p.done)
		err = p.Listener.Close()
	})
	return err
}
