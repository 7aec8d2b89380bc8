package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// refused runs a command that has to end by itself with an error: non-zero, saying all of wants.
func refused(t *testing.T, cmd *exec.Cmd, wants ...string) {
	t.Helper()
	out := &harness.LockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill()
		<-done
		t.Fatalf("it goes on instead of ending with an error:\n%s", harness.Tail(out.String(), 10))
	}
	if err == nil {
		t.Errorf("it ends as if all were well:\n%s", out.String())
	}
	last := harness.Tail(out.String(), 2)
	for _, w := range wants {
		if !strings.Contains(last, w) {
			t.Errorf("the error does not say %q:\n%s", w, out.String())
		}
	}
}

// Tokens that can never work end the agent with an error that says why, and leave no process behind.
func TestTokensThatCannotWork(t *testing.T) { harness.EachBroker(t, "token", 3, tokensThatCannotWork) }

func tokensThatCannotWork(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	other := harness.StartHub(t, ms[1], h.Args...) // with an external broker the two clusters share it
	agent := func(dir, token string) *exec.Cmd {
		return ms[2].Command(t.Context(), harness.Petrel, "agent", "--data-dir", dir, "--node-name", "edge", "--bridge", "pte0", "--containerd", "private", "--join", token)
	}
	// bad is a case with a directory of its own, of which nothing may go on running.
	bad := func(name, token string, wants ...string) {
		h.Sub(name, func(t *testing.T) {
			dir := t.TempDir()
			harness.Sweep(t, ms[2], dir)
			refused(t, agent(dir, token), wants...)
			if left := footprint(t, ms[2], dir); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
	const way = "petrel token create"

	good := h.Token("--description", "good")
	typo := "x"
	if good[40] == 'x' {
		typo = "y"
	}
	bad("mistyped", good[:40]+typo+good[41:], "a character is wrong or missing")
	bad("cut short", good[:len(good)-7], "a character is wrong or missing")
	bad("no token at all", "hunter2", "not a join token", way)
	bad("expired", h.Token("--ttl", "1ns"), "expired", way)

	deleted := h.Token("--description", "deleted")
	if out, err := ms[0].Command(t.Context(), harness.Petrel, "token", "delete", "--kubeconfig", h.Kubeconfig, h.TokenID(t, "deleted")).CombinedOutput(); err != nil {
		t.Fatalf("petrel token delete: %v: %s", err, out)
	}
	bad("deleted", deleted, "no such join token", way)

	// A hub that was set up again under the same address is another one. At an external broker nobody answers for the old
	// one, and that looks like a hub that is away.
	stale := other.Token()
	other.Stop(9)
	anew := harness.StartHub(t, ms[1], h.Args...)
	if len(h.Args) == 0 {
		bad("of a hub that was set up anew", stale, "another hub", way)
	}

	a := h.Join(ms[2], "first")
	used := a.Args[1] // --join TOKEN
	a.Stop(15)
	bad("used up", used, "used", way)

	h.Sub("of another hub, for a device that has joined", func(t *testing.T) {
		cmd := ms[2].Command(t.Context(), harness.Petrel, "agent", "--data-dir", a.Dir, "--node-name", "first", "--bridge", "pte0", "--containerd", "private", "--join", anew.Token())
		refused(t, cmd, "this device belongs to cluster")
	})
	h.Sub("a device that never joined takes another hub's token", func(t *testing.T) {
		dir := t.TempDir()
		harness.Sweep(t, ms[2], dir)
		refused(t, agent(dir, used), "used")
		moved := harness.Start(t, ms[2], "moved agent", "agent", "--data-dir", dir, "--node-name", "moved", "--bridge", "pte0", "--containerd", "private", "--no-keep-pods", "--join", anew.Token())
		anew.Ready("moved")
		moved.Stop(15)
	})
	h.Sub("a device that has joined does not give up over a bad token", func(t *testing.T) {
		a.T, a.Args = t, []string{"--join", used}
		a.Start()
		h.Ready("first")
	})
}

// What cannot run a node says why before it has changed anything.
func TestUnfitMachine(t *testing.T) {
	t.Parallel()
	ms := harness.LAN(t, "unfit", 2)
	h := harness.StartHub(t, ms[0])
	token := h.Token("--uses", "0")
	agent := func(t *testing.T, args ...string) *exec.Cmd {
		data := filepath.Join(t.TempDir(), "data")
		t.Cleanup(func() { os.RemoveAll(harness.RunDir(data)) })
		return ms[1].Command(t.Context(), harness.Petrel, append([]string{"agent", "--data-dir", data}, args...)...)
	}
	for _, c := range []struct {
		name  string
		args  []string
		wants []string
	}{
		{"node name", []string{"--join", token, "--node-name", "Not_A_Name"}, []string{"Not_A_Name", "--node-name"}},
		{"node address", []string{"--join", token, "--node-ip", "here"}, []string{"--node-ip", "here"}},
		{"label key", []string{"--join", token, "--node-name", "n", "--label", "a b=c"}, []string{"a b"}},
		{"label value", []string{"--join", token, "--node-name", "n", "--label", "a=b c"}, []string{"a=b c"}},
		{"taint effect", []string{"--join", token, "--node-name", "n", "--taint", "a=b:Never"}, []string{"--taint", "Never"}},
		{"unreadable join file", []string{"--join-file", "/nowhere/token"}, []string{"--join-file", "/nowhere/token"}},
		{"token and file", []string{"--join", token, "--join-file", "/nowhere/token"}, []string{"--join", "--join-file"}},
		{"neither", []string{"--node-name", "n"}, []string{"--join", "petrel token create"}},
		{"containerd that is not there", []string{"--join", token, "--node-name", "n", "--containerd", "/nowhere/sock"}, []string{"/nowhere/sock"}},
	} {
		h.Sub(c.name, func(t *testing.T) { refused(t, agent(t, c.args...), c.wants...) })
	}

	h.Sub("no containerd", func(t *testing.T) {
		if len(harness.Inside()) > 0 {
			t.Skip("this binary has its own; TestNothingElseInstalled runs it without the machine's")
		}
		for _, cmd := range []*exec.Cmd{
			agent(t, "--join", token, "--node-name", "n", "--containerd", "private"),
			ms[1].Command(t.Context(), harness.Petrel, "up", "--data-dir", t.TempDir(), "--containerd", "private"),
		} {
			cmd.Env = append(os.Environ(), "PATH="+t.TempDir())
			refused(t, cmd, "containerd is not installed", "apt-get install containerd")
		}
	})

	h.Sub("no root", func(t *testing.T) {
		// Where everybody may go, other than the test's own directories.
		dir, err := os.MkdirTemp("/tmp", "petrel-e2e-nobody-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		bin := filepath.Join(dir, "petrel")
		if out, err := exec.Command("cp", harness.Petrel, bin).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		nobody := func(args ...string) *exec.Cmd {
			return exec.CommandContext(t.Context(), "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", bin}, args...)...)
		}
		refused(t, nobody("agent", "--join", token, "--data-dir", filepath.Join(dir, "a")), "needs root", "sudo")
		refused(t, nobody("up", "--data-dir", filepath.Join(dir, "u")), "needs root", "sudo")
		refused(t, nobody("hub", "--data-dir", "/nowhere/hub", "--listen", "127.0.0.1:0"), "/nowhere", "--data-dir")
		refused(t, nobody("image", "list"), "needs root", "sudo")
		refused(t, nobody("kubeconfig", "--data-dir", h.Dir), "sudo")
	})

	h.Sub("the data directory is in use", func(t *testing.T) {
		a := h.Join(ms[1], "taken")
		refused(t, ms[1].Command(t.Context(), harness.Petrel, "agent", "--data-dir", a.Dir, "--join", token, "--node-name", "n2"), "another agent uses", a.Dir)
		h.Ready("taken")
		refused(t, exec.CommandContext(t.Context(), harness.Petrel, "hub", "--data-dir", h.Dir, "--listen", "127.0.0.1:0"), "in use", h.Dir)
		h.Kubectl("get", "nodes")
	})

	h.Sub("a data directory of a newer version", func(t *testing.T) {
		h.Stop(15)
		db := filepath.Join(h.Dir, "hub.db")
		sqlite := func(sql string) {
			if out, err := exec.Command("sqlite3", db, sql).CombinedOutput(); err != nil {
				t.Fatalf("sqlite3: %v: %s", err, out)
			}
		}
		version, err := exec.Command("sqlite3", db, "PRAGMA user_version").Output()
		if err != nil {
			t.Fatal(err)
		}
		sqlite("PRAGMA user_version = 4711")
		refused(t, ms[0].Command(t.Context(), harness.Petrel, "hub", "--data-dir", h.Dir, "--listen", h.Address), "4711", "newer", db)
		sqlite("PRAGMA user_version = " + strings.TrimSpace(string(version)))
		h.Start() // nothing is lost
		h.Kubectl("get", "node", "taken")
	})
}
