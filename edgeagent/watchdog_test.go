package edgeagent

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/node"
)

// TestStuckAgent checks that a loop that hangs makes the agent count as stuck, and neither a slow one nor a hub that is away.
func TestStuckAgent(t *testing.T) {
	dir := t.TempDir()
	kept, err := cache.Open(filepath.Join(dir, "cache"), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	synctest.Test(t, func(t *testing.T) {
		a, err := New(Config{DataDir: dir, NodeName: "edge-1", offline: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		a.cache = kept
		if a.node, err = node.New(node.Config{Name: "edge-1", DataDir: dir}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := a.alive(t.Context()); err != nil {
			t.Errorf("an idle agent without a hub: %v", err)
		}
		a.applying.Begin()
		time.Sleep(stuckAfter - time.Second)
		if err := a.alive(t.Context()); err != nil {
			t.Errorf("a slow one: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := a.alive(t.Context()); err == nil || !strings.Contains(err.Error(), "applying the desired set") {
			t.Errorf("one that hangs: %v", err)
		}
		a.applying.End()
		if err := a.alive(t.Context()); err != nil {
			t.Errorf("one that goes on: %v", err)
		}
	})
}

// TestWatchdog runs an agent with containers as systemd does: it reports that it is up, feeds the watchdog, and reports that it stops.
// Its children, containerd among them, report nothing.
func TestWatchdog(t *testing.T) {
	m := newMachine(t)
	socket := filepath.Join(m.run, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m.want(pod("a", sh("main", "env; sleep 1000")))
	m.boot("NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=300000")
	// All is taken at once, as systemd does: the socket holds ten messages, and what comes then is lost.
	said := make(chan string, 10_000)
	go func() {
		defer close(said)
		for b := make([]byte, 128); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			said <- string(b[:n])
		}
	}()
	read := func() string {
		select {
		case got := <-said:
			return got
		case <-time.After(time.Minute):
			return ""
		}
	}
	if got := read(); got != "READY=1" {
		t.Errorf("%q, want READY=1", got)
	}
	m.await("uid-a", "ready", ready)
	for range 3 {
		if got := read(); got != "WATCHDOG=1" {
			t.Errorf("%q, want WATCHDOG=1", got)
		}
	}
	m.awaitLog("uid-a", "main", "PATH=")
	if log := m.logOf("uid-a", "main"); strings.Contains(log, "NOTIFY_SOCKET") {
		t.Errorf("a container has the socket's name:\n%s", log)
	}
	m.term()
	for got := ""; got != "STOPPING=1"; {
		if got = read(); got != "WATCHDOG=1" && got != "STOPPING=1" {
			t.Fatalf("%q, want STOPPING=1", got)
		}
	}
}
