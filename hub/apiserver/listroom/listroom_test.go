package listroom

import (
	"bytes"
	"encoding/json"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/registry"
)

// TestLargeListsAreCollected checks that what a large list leaves is collected when it has been written, and that others cost no collection.
func TestLargeListsAreCollected(t *testing.T) {
	r := New(time.Hour)
	for _, c := range []struct {
		bytes int
		want  uint32
	}{{small - 1, 0}, {small, 0}, {large - 1, 0}, {large, 1}, {2 * maxAll, 1}} {
		list := &registry.ListResult{Items: []json.RawMessage{bytes.Repeat([]byte(" "), c.bytes)}}
		_, done, err := r.Read(t.Context(), "a", func() (*registry.ListResult, error) { return list, nil })
		if err != nil {
			t.Fatal(err)
		}
		before := forced()
		done()
		if got := forced() - before; got != c.want {
			t.Errorf("a list of %d bytes: collected %d times, want %d", c.bytes, got, c.want)
		}
	}
}

// TestRoomIsGivenOnCollected checks that who waits for the room of a large list gets it after the collection.
func TestRoomIsGivenOnCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, list := New(time.Hour), &registry.ListResult{Items: []json.RawMessage{make([]byte, maxUser)}}
		first, err := r.Enter(t.Context(), "a", list)
		if err != nil {
			t.Fatal(err)
		}
		before := forced()
		go func() {
			second, err := r.Enter(t.Context(), "a", list)
			if err != nil || forced() == before {
				t.Errorf("the room was given on before a collection: %v", err)
				return
			}
			second()
		}()
		synctest.Wait()
		first()
	})
}

// forced returns how many collections were asked for.
func forced() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}
