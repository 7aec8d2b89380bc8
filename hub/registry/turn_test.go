package registry

import (
	"testing"
	"testing/synctest"

	"petrel.dev/petrel/hub/auth"
)

// TestPatchTurns checks that one user with many large patches at once costs another one, or the hub's own loops, the time of
// one.
func TestPatchTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Registry{}
		release, err := r.turn(auth.WithUser(t.Context(), auth.User{Name: "noisy"}), heavyPatch)
		if err != nil {
			t.Fatal(err)
		}
		var served []string
		patch := func(user string) {
			done, err := r.turn(auth.WithUser(t.Context(), auth.User{Name: user}), heavyPatch)
			if err != nil {
				t.Error(err)
				return
			}
			served = append(served, user)
			done()
		}
		for range 100 {
			go patch("noisy")
			synctest.Wait()
		}
		go patch("quiet")
		go func() {
			if done, err := r.turn(t.Context(), heavyPatch); err == nil { // a loop of the hub
				served = append(served, "hub")
				done()
			}
		}()
		synctest.Wait()
		release()
		synctest.Wait()
		if len(served) != 102 {
			t.Fatalf("%d served", len(served))
		}
		first := map[string]bool{served[0]: true, served[1]: true, served[2]: true}
		if !first["quiet"] || !first["hub"] {
			t.Errorf("the first served: %q", served[:5])
		}
	})
}
