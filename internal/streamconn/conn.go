// Package streamconn makes a net.Conn of a stream of the link, so that TLS, HTTP and all else that expects a connection works
// over it: the hub's end of a connection to a pod, and the agent's end of one to the agent itself.
//
//	http.Transport, tls.Client ─► Conn ─► wire.Stream ═ link ═ wire.Stream ─► the pod's socket
//
// Each direction is one channel of the stream: bytes to the node on Stdin, from the node on Stdout.
package streamconn

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/internal/wire"
)

// chunk is the largest piece sent at once, in bytes. A write that is cut by its deadline knows to this exactness how much it
// has sent.
const chunk = 16 << 10

// Conn is one end of a stream as a net.Conn. All methods may be called from any goroutine.
type Conn struct {
	s       wire.Stream // owned: Close ends it
	in, out wire.Channel
	remote  Addr
	closed  atomic.Bool

	readUntil, writeUntil deadline

	reading sync.Mutex // one reader at a time; guards the next two
	left    []byte     // received and not yet read
	over    error      // io.EOF once the peer sends no more, or why nothing can be read any more; nil: neither
}

// Dialed returns the end of the hub, which opened the stream. remote names the other end.
func Dialed(s wire.Stream, remote string) *Conn {
	return newConn(s, wire.ChannelStdout, wire.ChannelStdin, remote)
}

// Accepted returns the end of the agent, which serves the stream. remote names the other end.
func Accepted(s wire.Stream, remote string) *Conn {
	return newConn(s, wire.ChannelStdin, wire.ChannelStdout, remote)
}

func newConn(s wire.Stream, in, out wire.Channel, remote string) *Conn {
	return &Conn{s: s, in: in, out: out, remote: Addr(remote)}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	ctx := c.readUntil.context()
	for len(c.left) == 0 {
		switch {
		case c.closed.Load():
			return 0, net.ErrClosed
		case ctx.Err() != nil:
			return 0, os.ErrDeadlineExceeded
		case c.over != nil:
			return 0, c.over
		case len(p) == 0:
			return 0, nil
		}
		ch, data, err := c.s.Recv(ctx)
		switch {
		case err != nil:
			c.over = c.ended(ctx, err)
		case ch != c.in: // neither end uses another channel for bytes
		case data == nil:
			c.over = io.EOF
		default:
			c.left = data
		}
		if errors.Is(c.over, os.ErrDeadlineExceeded) {
			c.over = nil
			return 0, os.ErrDeadlineExceeded // the deadline can be moved, and reading go on
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

// ended returns what the end of a stream is to who uses it as a connection.
func (c *Conn) ended(ctx context.Context, err error) error {
	var end *wire.StreamEnd
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case errors.As(err, &end) && end.Reason == "":
		return io.EOF
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return os.ErrDeadlineExceeded
	}
	return err
}

// Write implements net.Conn. A deadline that passes while it writes leaves the connection in an unknown state, as with TLS.
func (c *Conn) Write(p []byte) (n int, err error) {
	ctx := c.writeUntil.context()
	for n < len(p) {
		if ctx.Err() != nil {
			return n, os.ErrDeadlineExceeded
		}
		piece := p[n:min(len(p), n+chunk)]
		if err := c.s.Send(ctx, c.out, piece); err != nil {
			if err = c.ended(ctx, err); err == io.EOF {
				err = io.ErrClosedPipe // the peer has ended the stream; a write cannot end well
			}
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// CloseWrite ends what this end sends. The other may go on.
func (c *Conn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.s.CloseSend(context.Background(), c.out)
}

// Close implements net.Conn. Calling it again does nothing.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.readUntil.set(time.Time{})
	c.writeUntil.set(time.Time{})
	return c.s.Close(wire.StreamEnd{})
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return Addr("link") }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readUntil.set(t)
	c.writeUntil.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readUntil.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeUntil.set(t)
	return nil
}

// Addr names an end of a stream for people: it is no address of a network.
type Addr string

// Network implements net.Addr.
func (Addr) Network() string { return "petrel" }

// String implements net.Addr.
func (a Addr) String() string { return string(a) }
