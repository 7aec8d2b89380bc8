package broker

import (
	"net"
	"net/netip"
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
	will   []byte // last words, from CONNECT
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.device.hear()
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

func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }
