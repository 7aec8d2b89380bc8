package link

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// writes keeps what each Write to a connection was.
type writes struct {
	net.Conn
	mu  sync.Mutex
	got [][]byte
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, bytes.Clone(b))
	return len(b), nil
}

// TestSmallRecords has two goroutines write at once, as the MQTT library does with packets and pings: each of theirs stays whole, and
// nothing larger than a record's size reaches TLS.
func TestSmallRecords(t *testing.T) {
	under := &writes{}
	c := &smallRecords{Conn: under}
	var wg sync.WaitGroup
	for _, fill := range []byte("ab") {
		wg.Go(func() {
			for range 50 {
				if n, err := c.Write(bytes.Repeat([]byte{fill}, 5000)); n != 5000 || err != nil {
					t.Errorf("wrote %d of 5000: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	for _, b := range under.got {
		if len(b) > recordSize {
			t.Fatalf("a record of %d bytes", len(b))
		}
	}
	all := slices.Concat(under.got...)
	for len(all) > 0 {
		if n := len(all); n < 5000 || bytes.Count(all[:5000], all[:1]) != 5000 {
			t.Fatalf("a write was torn, %d bytes before the end", n)
		}
		all = all[5000:]
	}
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
}

// TestSmallRecordsFail checks that a write says how much of it went out.
func TestSmallRecordsFail(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_, _ = io.ReadFull(theirs, make([]byte, 2000))
		theirs.Close()
	}()
	if n, err := (&smallRecords{Conn: ours}).Write(make([]byte, 4000)); n != 2000 || err == nil {
		t.Errorf("wrote %d, %v; want 2000 and an error", n, err)
	}
}
