package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// token makes a join token.
func (h *hub) token(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := h.on.command(ctx, petrel, append([]string{"token", "create", "--kubeconfig", h.kubeconfig}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("petrel token create: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// tokenID finds the one token with a description.
func (h *hub) tokenID(t *testing.T, description string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := h.on.command(ctx, petrel, "token", "list", "--kubeconfig", h.kubeconfig).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, description) {
			return f[0]
		}
	}
	t.Fatalf("no token %q in\n%s", description, out)
	return ""
}

// refused runs a command that has to end by itself with an error: non-zero, saying all of wants.
func refused(t *testing.T, cmd *exec.Cmd, wants ...string) {
	t.Helper()
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		t.Fatalf("it goes on instead of ending with an error:\n%s", tail(out.String(), 10))
	}
	if err == nil {
		t.Errorf("it ends as if all were well:\n%s", out.String())
	}
	last := tail(out.String(), 2)
	for _, w := range wants {
		if !strings.Contains(last, w) {
			t.Errorf("the error does not say %q:\n%s", w, out.String())
		}
	}
}

// Tokens that can never work end the agent with an error that says why, and leave no process behind.
func TestTokensThatCannotWork(t *testing.T) { eachBroker(t, "token", 3, tokensThatCannotWork) }

func tokensThatCannotWork(t *testing.T, ms []machine, h *hub) {
	other := startHub(t, ms[1], h.args...) // with an external broker the two clusters share it
	agent := func(dir, token string) *exec.Cmd {
		return ms[2].command(t.Context(), petrel, "agent", "--data-dir", dir, "--node-name", "edge", "--bridge", "pte0", "--containerd", "private", "--join", token)
	}
	// bad is a case with a directory of its own, of which nothing may go on running.
	bad := func(name, token string, wants ...string) {
		h.sub(name, func(t *testing.T) {
			dir := t.TempDir()
			sweep(t, ms[2], dir)
			refused(t, agent(dir, token), wants...)
			if left := footprint(t, ms[2], dir); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
	const way = "petrel token create"

	good := h.token("--description", "good")
	typo := "x"
	if good[40] == 'x' {
		typo = "y"
	}
	bad("mistyped", good[:40]+typo+good[41:], "a character is wrong or missing")
	bad("cut short", good[:len(good)-7], "a character is wrong or missing")
	bad("no token at all", "hunter2", "not a join token", way)
	bad("expired", h.token("--ttl", "1ns"), "expired", way)

	deleted := h.token("--description", "deleted")
	if out, err := ms[0].command(t.Context(), petrel, "token", "delete", "--kubeconfig", h.kubeconfig, h.tokenID(t, "deleted")).CombinedOutput(); err != nil {
		t.Fatalf("petrel token delete: %v: %s", err, out)
	}
	bad("deleted", deleted, "no such join token", way)

	// A hub that was set up anew under the same address is another one. At an external broker nobody answers for the old
	// one, and that looks like a hub that is away.
	stale := other.token()
	other.stop(9)
	anew := startHub(t, ms[1], h.args...)
	if len(h.args) == 0 {
		bad("of a hub that was set up anew", stale, "another hub", way)
	}

	a := h.join(ms[2], "first")
	used := a.args[1] // --join TOKEN
	a.stop(15)
	bad("used up", used, "used", way)

	h.sub("of another hub, for a device that has joined", func(t *testing.T) {
		cmd := ms[2].command(t.Context(), petrel, "agent", "--data-dir", a.dir, "--node-name", "first", "--bridge", "pte0", "--containerd", "private", "--join", anew.token())
		refused(t, cmd, "this device belongs to cluster")
	})
	h.sub("a device that never joined takes another hub's token", func(t *testing.T) {
		dir := t.TempDir()
		sweep(t, ms[2], dir)
		refused(t, agent(dir, used), "used")
		moved := start(t, ms[2], "moved agent", "agent", "--data-dir", dir, "--node-name", "moved", "--bridge", "pte0", "--containerd", "private", "--no-keep-pods", "--join", anew.token())
		anew.ready("moved")
		moved.stop(15)
	})
	h.sub("a device that has joined does not give up over a bad token", func(t *testing.T) {
		a.t, a.args = t, []string{"--join", used}
		a.start()
		h.ready("first")
	})
}

// What cannot run a node says why before it has changed anything.
func TestUnfitMachine(t *testing.T) {
	t.Parallel()
	ms := lan(t, "unfit", 2)
	h := startHub(t, ms[0])
	token := h.token("--uses", "0")
	agent := func(t *testing.T, args ...string) *exec.Cmd {
		return ms[1].command(t.Context(), petrel, append([]string{"agent", "--data-dir", filepath.Join(t.TempDir(), "data")}, args...)...)
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
		h.sub(c.name, func(t *testing.T) { refused(t, agent(t, c.args...), c.wants...) })
	}

	h.sub("no containerd", func(t *testing.T) {
		for _, cmd := range []*exec.Cmd{
			agent(t, "--join", token, "--node-name", "n", "--containerd", "private"),
			ms[1].command(t.Context(), petrel, "up", "--data-dir", t.TempDir(), "--containerd", "private"),
		} {
			cmd.Env = append(os.Environ(), "PATH="+t.TempDir())
			refused(t, cmd, "containerd is not installed", "apt-get install containerd")
		}
	})

	h.sub("no root", func(t *testing.T) {
		// Where everybody may go, other than the test's own directories.
		dir, err := os.MkdirTemp("/tmp", "petrel-e2e-nobody-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		bin := filepath.Join(dir, "petrel")
		if out, err := exec.Command("cp", petrel, bin).CombinedOutput(); err != nil {
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
		refused(t, nobody("kubeconfig", "--data-dir", h.dir), "sudo")
	})

	h.sub("the data directory is in use", func(t *testing.T) {
		a := h.join(ms[1], "taken")
		refused(t, ms[1].command(t.Context(), petrel, "agent", "--data-dir", a.dir, "--join", token, "--node-name", "n2"), "another agent uses", a.dir)
		h.ready("taken")
		refused(t, exec.CommandContext(t.Context(), petrel, "hub", "--data-dir", h.dir, "--listen", "127.0.0.1:0"), "in use", h.dir)
		h.k("get", "nodes")
	})

	h.sub("a data directory of a newer version", func(t *testing.T) {
		h.stop(15)
		db := filepath.Join(h.dir, "hub.db")
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
		refused(t, ms[0].command(t.Context(), petrel, "hub", "--data-dir", h.dir, "--listen", h.address), "4711", "newer", db)
		sqlite("PRAGMA user_version = " + strings.TrimSpace(string(version)))
		h.start() // nothing is lost
		h.k("get", "node", "taken")
	})
}
