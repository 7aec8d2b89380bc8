package broker

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// writeLimit is how long one write to a node may take. A node that takes nothing for so long is gone.
	writeLimit = 10 * time.Second
	// connectLimit is how long a node may take to say CONNECT.
	connectLimit = 10 * time.Second
)

// conn is a connection from a node, whose device TLS has proved. Deadlines set by the library bind reads only: it means
// the keepalive by them. A failed write closes the connection, since the library goes on after one.
type conn struct {
	net.Conn
	node   string       // id in topics
	fp     string       // fingerprint of the device
	from   netip.Prefix // network that it comes from
	since  time.Time
	device *device
	heard  atomic.Int64 // when it last sent anything, as device.heard
	given  bool         // its place is another's, and it is being closed; guarded by Broker.mu
	will   []byte       // last words, from CONNECT
}

// hear notes that the device has said something.
func (c *conn) hear() {
	c.device.hear()
	c.heard.Store(c.device.heard.Load())
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.hear()
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		c.Conn.Close()
	}
	return n, err
}

// cut ends the connection at once, for those who hold a lock: TLS says good-bye first, and gives a peer that takes nothing
// five seconds for it.
func (c *conn) cut() {
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.Conn.Close()
}

func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }
