package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// What an agent and the containerd inside it may have together with ten pods at rest, in KiB.
const (
	nodeRSS  = 75 << 10
	nodeAnon = 40 << 10
)

// TestNodeMemory holds an agent and the containerd inside it, with ten pods at rest, to their budget. Shims are only logged: they
// are a part of what a pod costs.
func TestNodeMemory(t *testing.T) {
	if len(harness.Inside()) == 0 {
		t.Skip("this binary has no programs inside: PETREL_BIN names one that `make build` made")
	}
	ms := harness.LAN(t, "memory", 2)
	h := harness.StartHub(t, ms[0])
	h.AgentEnv = []string{"PATH=" + t.TempDir()} // where no other containerd is
	a := h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(helloManifest, 10))
	h.Available("hello")
	daemons, shims := running(t, a.Dir, "containerd"), running(t, a.Dir, "containerd-shim-runc-v2")
	if len(daemons) != 1 || len(shims) == 0 {
		t.Fatalf("%d containerds and %d shims of this agent run", len(daemons), len(shims))
	}
	// Both give memory back for two minutes after their start; see internal/lean.
	var rss, anon int64
	for end := time.Now().Add(lastPass + 30*time.Second); ; time.Sleep(5 * time.Second) {
		agent, daemon := harness.UsageOf(t, a.Cmd.Process.Pid), harness.UsageOf(t, daemons[0])
		rss, anon = agent.RSS+daemon.RSS, agent.Anon+daemon.Anon
		t.Logf("agent %d KiB (%d anonymous), containerd %d (%d), together %d (%d)", agent.RSS, agent.Anon, daemon.RSS, daemon.Anon, rss, anon)
		if rss <= nodeRSS && anon <= nodeAnon || time.Now().After(end) {
			break
		}
	}
	var shimRSS, shimAnon int64
	for _, pid := range shims {
		u := harness.UsageOf(t, pid)
		shimRSS, shimAnon = shimRSS+u.RSS, shimAnon+u.Anon
	}
	t.Logf("%d shims: %d KiB (%d anonymous)", len(shims), shimRSS, shimAnon)
	if rss > nodeRSS || anon > nodeAnon {
		t.Errorf("agent and containerd have %d KiB, %d of them anonymous; the budget is %d (%d)", rss, anon, nodeRSS, nodeAnon)
	}
}

// running returns the processes of a program that the agent with this data directory has unpacked.
func running(t *testing.T, dir, program string) (pids []int) {
	t.Helper()
	want, err := os.Stat(filepath.Join(dir, "agent", "bin", program))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range files {
		have, err := os.Stat(exe) // follows to the file, in whatever namespace it is
		if err != nil || !os.SameFile(want, have) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
