package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// fakeConn reads from r.
type fakeConn struct {
	net.Conn
	r      io.Reader
	closed bool
}

func (c *fakeConn) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c *fakeConn) Close() error               { c.closed = true; return nil }

func mqttPacket(size int) []byte {
	b := []byte{0x30}
	for n := size; ; {
		x := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			b = append(b, x|0x80)
			continue
		}
		b = append(b, x)
		break
	}
	return append(b, make([]byte, min(size, 1<<20))...)
}

// A broker that announces a packet of 256 MiB has the client's connection end before the client makes room for it.
func TestBrokerPacketsAreBounded(t *testing.T) {
	good := bytes.Join([][]byte{mqttPacket(0), mqttPacket(2), mqttPacket(200), mqttPacket(MaxFrame + 200), {0xd0, 0}}, nil)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader,
	} {
		got, err := io.ReadAll(BoundPackets(&fakeConn{r: wrap(bytes.NewReader(good))}))
		if err != nil || !bytes.Equal(got, good) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(good), err)
		}
		for _, bad := range [][]byte{mqttPacket(1<<28 - 1), mqttPacket(maxMQTTPacket + 1), {0x30, 0xff, 0xff, 0xff, 0xff, 0x01}} {
			c := &fakeConn{r: wrap(bytes.NewReader(append(bytes.Clone(good), bad...)))}
			got, err := io.ReadAll(BoundPackets(c))
			if !errors.Is(err, ErrFormat) || !c.closed || len(got) > len(good)+5 {
				t.Errorf("%s: %d bytes passed, %v", name, len(got), err)
			}
		}
	}
}
