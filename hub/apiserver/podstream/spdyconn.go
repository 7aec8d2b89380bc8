package podstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"petrel.dev/petrel/internal/contain"
)

// What one SPDY connection may cost. The library queues 50 frames in each of five queues before they are read, and
// a frame may have 16 MiB; it has no bound of its own.
const (
	// maxDataFrame is the size that data frames are cut to, in bytes: 250 of them are 1 MiB.
	maxDataFrame = 4 << 10
	// maxControlFrame bounds a frame with headers, which are compressed, in bytes.
	maxControlFrame = 16 << 10
	// maxStreams bounds the streams of one connection that are open at once. port-forward uses two for each connection
	// that it carries.
	maxStreams = 256
)

const (
	frameHeader    = 8       // bytes: stream or type (4), flags (1), length (3); SPDY/3.1 section 2.2
	controlBit     = 1 << 31 // of the first word
	finalFlag      = 0x01    // of a data frame: nothing follows
	lengthMask     = 1<<24 - 1
	controlVersion = 3
)

// boundedConn is a client's SPDY connection: what comes in is cut into small data frames, and refused when it is a frame
// that clients do not need; what goes out must be read within Patience. One goroutine reads; any may write.
type boundedConn struct {
	net.Conn
	r io.Reader // the connection, behind what was read ahead

	head    [frameHeader]byte
	pending []byte // of head, not handed on yet
	payload int    // bytes of the piece under way, not handed on yet
	rest    int    // bytes of the frame behind that piece
	flags   byte   // of the frame, which its last piece gets
}

// Read returns frames whose data is at most maxDataFrame long.
func (c *boundedConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(c.pending) == 0 && c.payload == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.pending) > 0 {
		n := copy(b, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	n, err := c.r.Read(b[:min(len(b), c.payload)])
	c.payload -= n
	return n, err
}

// next begins the next piece: of the frame under way, or of a new one.
func (c *boundedConn) next() error {
	if c.rest == 0 {
		if _, err := io.ReadFull(c.r, c.head[:]); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return err
		}
		word, size := binary.BigEndian.Uint32(c.head[:4]), int(binary.BigEndian.Uint32(c.head[4:])&lengthMask)
		if word&controlBit != 0 {
			if version := word >> 16 &^ (controlBit >> 16); size > maxControlFrame || version != controlVersion {
				return fmt.Errorf("SPDY control frame of version %d with %d bytes: version %d and %d bytes are allowed", version, size, controlVersion, maxControlFrame)
			}
			c.pending, c.payload = c.head[:], size
			return nil
		}
		c.flags, c.rest = c.head[4], size
	}
	piece := min(c.rest, maxDataFrame)
	c.rest -= piece
	flags := c.flags
	if c.rest > 0 {
		flags &^= finalFlag
	}
	binary.BigEndian.PutUint32(c.head[4:], uint32(piece))
	c.head[4] = flags
	c.pending, c.payload = c.head[:], piece
	return nil
}

// Write fails when the client does not read for Patience.
func (c *boundedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// spdyUpgrade takes over the client's connection, as SPDY/3.1.
func (x *stream) spdyUpgrade(accept httpstream.NewStreamHandler) (httpstream.Connection, error) {
	h := x.W.Header()
	h.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	h.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	x.W.WriteHeader(http.StatusSwitchingProtocols)
	conn, ahead, err := http.NewResponseController(x.W).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	return x.spdyServe(conn, ahead, accept)
}

// spdyServe speaks SPDY on conn, whose bytes come from r. accept is called for each stream, by the connection's reader.
func (x *stream) spdyServe(conn net.Conn, r io.Reader, accept httpstream.NewStreamHandler) (httpstream.Connection, error) {
	bounded := &boundedConn{Conn: conn, r: r}
	c, err := spdy.NewServerConnection(bounded, func(s httpstream.Stream, replied <-chan struct{}) error {
		return contain.Do(x.Log, "hub/apiserver/podstream/stream", x.key(), func() error { return accept(s, replied) })
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("begin SPDY: %w", err)
	}
	return &spdyConn{Connection: c, raw: bounded}, nil
}

// spdyConn closes at once: the library's own Close waits for streams that were not removed from it.
type spdyConn struct {
	httpstream.Connection
	raw    net.Conn
	closed atomic.Bool
}

func (c *spdyConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return errors.Join(c.Connection.Close(), ignoreClosed(c.raw.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
