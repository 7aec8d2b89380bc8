package dispatch

import (
	"testing"
	"time"

	"petrel.dev/petrel/internal/wire"
)

// What one device has waiting for the loop is bounded in number and bytes, and less for one that nobody knows.
func TestInboxIsBoundedPerDevice(t *testing.T) {
	i := newInbox(func(string) time.Time { return time.Time{} })
	i.known = func(node string) bool { return node == "known" }
	fill := func(node string, size int) (frames, bytes int) {
		for range 1000 {
			i.frame(wire.UpTopic("c", node), make([]byte, size))
		}
		_, got, _, _ := i.take()
		for _, f := range got {
			bytes += len(f.b)
		}
		return len(got), bytes
	}
	if n, b := fill("known", 100); n != maxFrames || b > maxFrameBytes {
		t.Errorf("small frames: %d of %d bytes", n, b)
	}
	if n, b := fill("known", wire.MaxFrame); n < 2 || b > maxFrameBytes {
		t.Errorf("large frames: %d of %d bytes", n, b)
	}
	if n, b := fill("stranger", wire.MaxFrame); n != 1 || b > maxStrangerBytes {
		t.Errorf("a stranger's: %d of %d bytes", n, b)
	}
}
