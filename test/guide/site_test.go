package guide

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// site is the machines that a page begins with and others go on with: boards pi1 to pi3, and the reader's computer, on one switch.
type site struct {
	machines map[string]*machine
	token    string // the join token that was printed last
}

// newSite makes the machines, switched on. Each has the file petrel in its home directory, as after a download, and in bin, as after a
// build in a checkout, of which the examples are there too. The computer has petrel and kubectl installed.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	s := &site{machines: map[string]*machine{}}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"pi1", "pi2", "pi3", computer}
	lan := harness.LAN(t, "g"+name, len(names))
	hosts := "127.0.0.1 localhost\n"
	for i, n := range names {
		hosts += lan[i].IP + " " + n + "\n"
	}
	for i, n := range names {
		m := &machine{name: n, lan: lan[i], disk: t.TempDir()}
		s.machines[n] = m
		if err := os.Mkdir(filepath.Join(m.disk, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.disk, "etc", "hosts"), []byte(hosts), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.cut)
		m.boot(t)
		home := filepath.Join(m.disk, "root")
		link(t, harness.Petrel, filepath.Join(home, "petrel"))
		link(t, examples, filepath.Join(home, "examples"))
		if err := os.Mkdir(filepath.Join(home, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		link(t, harness.Petrel, filepath.Join(home, "bin", "petrel"))
	}
	bin := filepath.Join(s.machines[computer].disk, "bin")
	link(t, harness.Petrel, filepath.Join(bin, "petrel"))
	link(t, harness.KubectlPath, filepath.Join(bin, "kubectl"))
	link(t, harness.KubectlPath, filepath.Join(s.machines["pi1"].disk, "bin", "kubectl"))
	return s
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// close ends what runs on the machines as a reader would, nodes before their hub.
func (s *site) close() {
	for _, name := range []string{computer, "pi3", "pi2", "pi1"} {
		s.machines[name].shutDown()
	}
}

// objects are what the cluster holds besides what every new one has, and its nodes.
func (s *site) objects() string {
	out, err := s.machines["pi1"].run("/root/petrel get namespaces,deploy,rs,sts,ds,jobs,cronjobs,pods,services,configmaps,secrets,pvc,pv,netpol,roles,rolebindings -A -o name 2>/dev/null")
	if err != nil {
		return "" // there is no hub
	}
	var kept []string
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "secret/join-token-") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// settled returns the objects once nothing of them is being deleted any more, so that a page does not begin with what the one before it has
// deleted. An owner goes before what it owns, and a pod after its grace.
func (s *site) settled(t *testing.T) string {
	last, same := s.objects(), 0
	if last == "" {
		return ""
	}
	harness.Eventually(t, time.Minute, "nothing is being deleted", func() error {
		ending, err := s.machines["pi1"].run("/root/petrel get pods,namespaces -A -o jsonpath='{.items[*].metadata.deletionTimestamp}'")
		if err != nil {
			return err
		}
		now := s.objects()
		if same++; now != last || strings.TrimSpace(ending) != "" {
			same = 0
		}
		if last = now; same < 5 {
			return fmt.Errorf("deleted at %q, or still changing:\n%s", ending, now)
		}
		return nil
	})
	return last
}
