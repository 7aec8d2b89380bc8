package podstream

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

func frame(word uint32, flags byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, word)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b[4] = flags
	return append(b, payload...)
}

// A frame of 16 MiB, of which the library would keep 250, arrives as many small ones; nothing is lost, and only the last
// is the final one.
func TestLargeFramesAreCut(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1<<20)
	syn := frame(controlBit|controlVersion<<16|1, 0, bytes.Repeat([]byte{7}, 100))
	in := append(append(bytes.Clone(syn), frame(5, finalFlag, data)...), frame(7, 0, nil)...)
	c := &boundedConn{r: bytes.NewReader(in)}
	got := make([]byte, len(syn))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, syn) {
		t.Fatalf("%v: the control frame changed", err)
	}
	var all []byte
	for final := false; !final; {
		var head [frameHeader]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			t.Fatal(err)
		}
		n := int(binary.BigEndian.Uint32(head[4:]) & lengthMask)
		if binary.BigEndian.Uint32(head[:4]) != 5 || n > maxDataFrame {
			t.Fatalf("frame %v", head)
		}
		final = head[4]&finalFlag != 0
		piece := make([]byte, n)
		if _, err := io.ReadFull(c, piece); err != nil {
			t.Fatal(err)
		}
		all = append(all, piece...)
	}
	if !bytes.Equal(all, data) {
		t.Errorf("%d bytes of %d, or others", len(all), len(data))
	}
	if rest, err := io.ReadAll(c); err != nil || !bytes.Equal(rest, frame(7, 0, nil)) {
		t.Errorf("then %v, %v", rest, err)
	}
}

func TestStrangeControlFramesAreRefused(t *testing.T) {
	for name, in := range map[string][]byte{
		"too large":     frame(controlBit|controlVersion<<16|1, 0, make([]byte, maxControlFrame+1)),
		"other version": frame(controlBit|2<<16|1, 0, nil),
	} {
		c := &boundedConn{r: bytes.NewReader(in)}
		if _, err := io.ReadAll(c); err == nil || !strings.Contains(err.Error(), "SPDY control frame") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A cut connection is an end, not a frame.
	c := &boundedConn{r: bytes.NewReader([]byte{1, 2, 3})}
	if _, err := c.Read(make([]byte, 8)); err != io.EOF {
		t.Error(err)
	}
}

// FuzzSPDYFrames checks that whatever a client sends, what comes out is frames within the bounds, or an error.
func FuzzSPDYFrames(f *testing.F) {
	f.Add(frame(1, 0, []byte("abc")), uint8(3))
	f.Add(frame(controlBit|controlVersion<<16|1, 1, []byte("abc")), uint8(200))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var _ net.Conn = (*boundedConn)(nil)
		c := &boundedConn{r: bytes.NewReader(in)}
		var out []byte
		buf := make([]byte, max(1, int(step)))
		for {
			n, err := c.Read(buf)
			out = append(out, buf[:n]...)
			if err != nil {
				break
			}
		}
		for len(out) >= frameHeader {
			n := int(binary.BigEndian.Uint32(out[4:]) & lengthMask)
			bound := maxDataFrame
			if out[0]&0x80 != 0 {
				bound = maxControlFrame
			}
			if n > bound {
				t.Fatalf("a frame of %d bytes", n)
			}
			out = out[min(len(out), frameHeader+n):]
		}
	})
}
