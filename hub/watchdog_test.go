package hub

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"petrel.dev/petrel/internal/sdnotify"
)

// hangingStore is a store whose rounds take too long while stuck is set.
type hangingStore struct {
	engine
	stuck atomic.Bool
}

func (s *hangingStore) Stuck(limit time.Duration) error {
	if s.stuck.Load() {
		return errors.New("store: one round takes since 3m0s")
	}
	return s.engine.Stuck(limit)
}

// TestWatchdog runs a hub as systemd does: it reports that it is up, feeds the watchdog, stops feeding it while its store hangs, and
// reports that it stops.
func TestWatchdog(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "60000")
	next := func(wait time.Duration) string {
		t.Helper()
		b := make([]byte, 128)
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	expect := func(want string) {
		t.Helper()
		for {
			switch got := next(30 * time.Second); got {
			case want:
				return
			case "WATCHDOG=1": // it comes again and again
			default:
				t.Fatalf("%q, want %s", got, want)
			}
		}
	}
	cfg := validConfig()
	cfg.DataDir, cfg.Listen, cfg.Backups, cfg.Domain, cfg.Notify, cfg.Log = t.TempDir(), "127.0.0.1:0", -1, "cluster.local", sdnotify.FromEnv(), slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	store := &hangingStore{engine: h.db}
	h.db = store
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	expect("READY=1")
	expect("WATCHDOG=1")
	store.stuck.Store(true)
	if err := h.alive(ctx); err == nil || !strings.Contains(err.Error(), "store: one round") {
		t.Errorf("a hub whose store hangs: %v", err)
	}
	for next(time.Second) != "" { // what was on its way; then nothing for many times the watchdog's pause
	}
	store.stuck.Store(false)
	expect("WATCHDOG=1")
	cancel()
	expect("STOPPING=1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
