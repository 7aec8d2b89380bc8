package edgeagent

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/internal/contain"
)

// TestPanicInApply checks that a panic while the desired set is applied is a failure, after which it is tried again; nothing
// stays locked, and the agent's other parts go on.
func TestPanicInApply(t *testing.T) {
	a := &Agent{log: slog.New(slog.DiscardHandler)} // without a cache to ask
	before := contain.Counts()["agent/apply"]
	if a.applied(t.Context(), nil, false) {
		t.Error("it counts as applied")
	}
	if contain.Counts()["agent/apply"] != before+1 {
		t.Error("there was no panic")
	}
	if !a.mu.TryLock() {
		t.Fatal("the agent's lock is held for good")
	}
	a.mu.Unlock()
	if err := atMost(time.Minute, "stopping", func() error { panic("poison") }); err == nil {
		t.Error("a panic on the way out is no error")
	}
}

// TestPanicSitesAreTheAgents checks that every site in the agent's packages counts as the agent's, and none of the hub's does.
func TestPanicSitesAreTheAgents(t *testing.T) {
	site := regexp.MustCompile(`contain\.(?:Do|Go)\([^\n"]*"([a-z]+)/`)
	seen := map[string]bool{}
	for root, want := range map[string]bool{".": true, "../svcproxy": true, "../hub": false, "../sqlstore": false} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range site.FindAllStringSubmatch(string(b), -1) {
				seen[m[1]] = true
				if slices.Contains(panicSites, m[1]) != want {
					t.Errorf("%s: panics at %q count as the agent's: %v, want %v", path, m[1], !want, want)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, room := range panicSites {
		if !seen[room] {
			t.Errorf("no site begins with %s", room)
		}
	}
	before := panics()
	for _, at := range []string{"podrun/worker", "svcproxy/dns", "control/deployment"} {
		remove := contain.Inject(func(string, string) { panic("injected") })
		_ = contain.Do(nil, at, "k", func() error { return nil })
		remove()
	}
	if n := panics() - before; n != 2 {
		t.Errorf("%d panics of the agent are counted, want 2", n)
	}
}
