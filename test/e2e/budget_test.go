package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// usage is what /proc tells of a process.
type usage struct {
	rss, anon int64         // KiB
	cpu       time.Duration // user and system
	written   int64         // bytes that reached the block layer
}

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	read := func(file string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	number := func(text, key string) int64 {
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(line, key); ok {
				n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				return n
			}
		}
		t.Fatalf("no %q for pid %d", key, pid)
		return 0
	}
	status := read("status")
	stat := strings.Fields(read("stat")[strings.LastIndex(read("stat"), ")")+1:])
	user, _ := strconv.ParseInt(stat[11], 10, 64)
	system, _ := strconv.ParseInt(stat[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux architecture that Go knows
	return usage{
		rss: number(status, "VmRSS:"), anon: number(status, "RssAnon:"),
		cpu: time.Duration(user+system) * tick, written: number(read("io"), "write_bytes:"),
	}
}

// TestIdleBudgets measures hub and agent with ten pods, at rest, and the link between them. Memory and written bytes are
// held to their budgets; times are only told, since they depend on the machine. PETREL_IDLE lengthens the rest,
// PETREL_IDLE_PROBES=no leaves out the pods' probes, which are most of what an agent at rest does.
func TestIdleBudgets(t *testing.T) {
	rest := 20 * time.Second
	if d, err := time.ParseDuration(os.Getenv("PETREL_IDLE")); err == nil {
		rest = d
	}
	ms := lan(t, "budget", 2)

	began := time.Now()
	h := startHub(t, ms[0])
	t.Logf("hub: first start to an answer of /readyz by kubectl: %s", time.Since(began).Round(time.Millisecond))
	a := h.join(ms[1], "edge")
	manifest, probes := fmt.Sprintf(helloManifest, 10), "a readiness probe each second"
	if os.Getenv("PETREL_IDLE_PROBES") == "no" {
		var kept []string
		for line := range strings.Lines(manifest) {
			if !strings.Contains(line, "readinessProbe") {
				kept = append(kept, line)
			}
		}
		manifest, probes = strings.Join(kept, ""), "no probes"
	}
	h.apply(manifest)
	h.available("hello")
	time.Sleep(8 * time.Second) // what came with the start is written and collected

	hubBefore, agentBefore, linkBefore := usageOf(t, h.cmd.Process.Pid), usageOf(t, a.cmd.Process.Pid), linkBytes(t, ms[1])
	time.Sleep(rest)
	hubAfter, agentAfter, linkAfter := usageOf(t, h.cmd.Process.Pid), usageOf(t, a.cmd.Process.Pid), linkBytes(t, ms[1])

	perMinute := func(d time.Duration) time.Duration {
		return time.Duration(float64(d) * float64(time.Minute) / float64(rest)).Round(time.Millisecond)
	}
	t.Logf("idle for %s, ten pods with %s", rest, probes)
	t.Logf("hub:   RSS %d KiB, anonymous %d KiB, CPU %s a minute, written %d bytes", hubAfter.rss, hubAfter.anon, perMinute(hubAfter.cpu-hubBefore.cpu), hubAfter.written-hubBefore.written)
	t.Logf("agent: RSS %d KiB, anonymous %d KiB, CPU %s a minute, written %d bytes", agentAfter.rss, agentAfter.anon, perMinute(agentAfter.cpu-agentBefore.cpu), agentAfter.written-agentBefore.written)
	const month = 30 * 24 * time.Hour
	t.Logf("link:  %d bytes in %s, %.1f MB a month", linkAfter-linkBefore, rest, float64(linkAfter-linkBefore)*float64(month)/float64(rest)/1e6)

	for _, b := range []struct {
		what      string
		got, most int64
	}{
		{"hub RSS (KiB)", hubAfter.rss, 60 << 10},
		{"hub anonymous memory (KiB)", hubAfter.anon, 25 << 10},
		{"hub bytes written while idle", hubAfter.written - hubBefore.written, 0},
		{"agent RSS (KiB)", agentAfter.rss, 50 << 10},
		{"agent anonymous memory (KiB)", agentAfter.anon, 20 << 10},
		{"agent bytes written while idle", agentAfter.written - agentBefore.written, 0},
	} {
		if b.got > b.most {
			t.Errorf("%s: %d, the budget is %d", b.what, b.got, b.most)
		}
	}
}

// linkBytes are the bytes that a machine's interface has carried both ways.
func linkBytes(t *testing.T, m machine) int64 {
	t.Helper()
	out, err := m.command(t.Context(), "cat", "/proc/net/dev").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if name, counters, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == "eth0" {
			f := strings.Fields(counters)
			rx, _ := strconv.ParseInt(f[0], 10, 64)
			tx, _ := strconv.ParseInt(f[8], 10, 64)
			return rx + tx
		}
	}
	t.Fatal("no eth0")
	return 0
}
