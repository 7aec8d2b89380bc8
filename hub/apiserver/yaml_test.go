package apiserver

import (
	"strings"
	"testing"
	"testing/synctest"

	"petrel.dev/petrel/hub/auth"
)

// TestYAMLTurns checks that one user with many bodies in YAML at once costs another one the time of one of them, not of all.
func TestYAMLTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{budgets: newBudgets(Limits{}.withDefaults())}
		release, err := s.budgets.yaml.Acquire(t.Context(), "noisy")
		if err != nil {
			t.Fatal(err)
		}
		var served []string
		write := func(user string) {
			x := &exchange{s: s, ctx: t.Context(), user: auth.User{Name: user}}
			if _, ok := x.toYAML([]byte(`{"a":1}`)); ok {
				served = append(served, user)
			}
		}
		for range 100 {
			go write("noisy")
			synctest.Wait()
		}
		go write("quiet")
		synctest.Wait()
		release()
		synctest.Wait()
		if len(served) != 101 || !strings.Contains(strings.Join(served[:2], " "), "quiet") {
			t.Errorf("%d served, the first: %q", len(served), served[:min(10, len(served))])
		}
	})
}
