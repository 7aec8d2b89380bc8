package listroom

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/registry"
)

// TestRoomIsGivenOn checks that a list waits while another one has its user's share, that it gets the room when that one is done, and that small
// ones never wait.
func TestRoomIsGivenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, of := New(time.Hour), func(n int) *registry.ListResult {
			return &registry.ListResult{Items: []json.RawMessage{make([]byte, n)}}
		}
		first, err := r.Enter(t.Context(), "a", of(maxUser))
		if err != nil {
			t.Fatal(err)
		}
		entered := false
		go func() {
			second, err := r.Enter(t.Context(), "a", of(maxUser))
			if err != nil {
				t.Error(err)
				return
			}
			entered = true
			second()
		}()
		synctest.Wait()
		if entered {
			t.Error("a second list had room beside one that takes all")
		}
		began := time.Now()
		if done, err := r.Enter(t.Context(), "a", of(small-1)); err != nil || time.Since(began) != 0 {
			t.Errorf("a small list waited %s: %v", time.Since(began), err)
		} else {
			done()
		}
		first()
		synctest.Wait()
		if !entered {
			t.Error("the room was not given on")
		}
	})
}
