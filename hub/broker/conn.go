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
	// connectLimit is how long a node may take to send CONNECT.
	connectLimit = 10 * time.Second
)

// conn is a connection from a node, whose device TLS has proved. Deadlines that the library sets apply to reads only: by them
// it enforces the keepalive. A failed write closes the connection, since the library goes on after one.
type conn struct {
	net.Conn
	node     string       // id in topics
	fp       string       // fingerprint of the device
	from     netip.Prefix // network that it comes from
	since    time.Time
	device   *device
	lastSeen atomic.Int64 // when it last sent anything, as device.lastSeen
	evicted  bool         // a newer connection has its place, and it is being closed; guarded by Broker.mu
	will     []byte       // MQTT's will, from CONNECT: delivered when the connection ends; nil for none
}

// touch notes that the connection, and so its device, has sent something.
func (c *conn) touch() {
	c.device.touch()
	c.lastSeen.Store(c.device.lastSeen.Load())
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.touch()
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

// cut ends the connection at once, so that it may be called with a lock held: tls.Conn.Close would first send an alert, and
// wait up to five seconds for a peer that reads nothing.
func (c *conn) cut() {
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.Conn.Close()
}

func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }
