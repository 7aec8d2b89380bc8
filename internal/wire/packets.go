package wire

import (
	"fmt"
	"net"
)

// maxMQTTPacket bounds what a client takes from a broker in one MQTT packet: a frame, its topic and the packet's head.
const maxMQTTPacket = MaxFrame + 4<<10

// BoundPackets returns conn with an end at the first MQTT packet that announces more than a frame of this protocol can need.
// An MQTT client makes room for what a packet's head announces, up to 256 MiB, and the broker need not be trusted.
func BoundPackets(conn net.Conn) net.Conn { return &boundConn{Conn: conn} }

// boundConn follows the heads of the packets that are read. Used by one reading goroutine.
type boundConn struct {
	net.Conn
	rest  int  // bytes of the packet's body still to come
	size  int  // of the body, as far as its head has been read
	shift int  // of the next byte of the length in the head
	begun bool // the first byte of a head has been read
}

// Read reads no further than the end of the bytes that conn had, and returns an error in place of a head that says too much.
func (c *boundConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for k := 0; k < n; {
		if c.rest > 0 {
			step := min(c.rest, n-k)
			c.rest -= step
			k += step
			continue
		}
		if !c.begun {
			c.begun, c.size, c.shift = true, 0, 0
			k++
			continue
		}
		c.size |= int(b[k]&0x7f) << c.shift
		c.shift += 7
		more := b[k]&0x80 != 0
		k++
		if c.size > maxMQTTPacket || more && c.shift > 21 {
			c.Conn.Close()
			return 0, fmt.Errorf("broker announces an MQTT packet of %d bytes or more, %d are the limit: %w", c.size, maxMQTTPacket, ErrFormat)
		}
		if !more {
			c.begun, c.rest = false, c.size
		}
	}
	return n, err
}
