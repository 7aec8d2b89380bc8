package sdnotify

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// systemd is the socket of a service manager.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

// listen makes the socket and the environment of a service.
func listen(t *testing.T, watchdog time.Duration) systemd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	return systemd{t, conn}
}

// next returns the next report; empty when none comes for that long.
func (s systemd) next(wait time.Duration) string {
	s.t.Helper()
	b := make([]byte, 256)
	_ = s.conn.SetReadDeadline(time.Now().Add(wait))
	n, err := s.conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b[:n])
}

const patience = 20 * time.Second

// TestReports checks what systemd reads, that the watchdog is fed while the probe succeeds and not while it fails, and that children
// inherit nothing of it.
func TestReports(t *testing.T) {
	s := listen(t, 30*time.Millisecond)
	n := FromEnv()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left for children", name, v)
		}
	}
	n.Ready(quiet)
	if got := s.next(patience); got != "READY=1" {
		t.Errorf("%q, want READY=1", got)
	}
	var sick atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	asked := make(chan struct{}, 1)
	go func() {
		ended <- n.Run(ctx, quiet, func(context.Context) error {
			if !sick.Load() {
				return nil
			}
			select {
			case asked <- struct{}{}:
			default:
			}
			return errors.New("stuck")
		})
	}()
	for range 3 {
		if got := s.next(patience); got != "WATCHDOG=1" {
			t.Fatalf("%q, want WATCHDOG=1", got)
		}
	}
	sick.Store(true)
	<-asked
	for s.next(time.Millisecond) != "" { // what was on its way
	}
	<-asked
	<-asked
	if got := s.next(time.Millisecond); got != "" {
		t.Errorf("a service that is stuck reports %q", got)
	}
	sick.Store(false)
	if got := s.next(patience); got != "WATCHDOG=1" {
		t.Errorf("%q after it has recovered", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for s.next(time.Millisecond) != "" {
	}
	n.Stopping(quiet)
	if got := s.next(patience); got != "STOPPING=1" {
		t.Errorf("%q, want STOPPING=1", got)
	}
}

// TestHangingProbe checks that a probe that ignores its time feeds nothing.
func TestHangingProbe(t *testing.T) {
	s := listen(t, 30*time.Millisecond)
	n := FromEnv()
	hang, begun := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- n.Run(ctx, quiet, func(ctx context.Context) error { close(begun); <-hang; return ctx.Err() })
	}()
	<-begun
	if got := s.next(100 * time.Millisecond); got != "" {
		t.Errorf("%q while the probe hangs", got)
	}
	cancel()
	close(hang)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNotAsked checks that without systemd, or without a watchdog, or with that of another process, nothing is reported.
func TestNotAsked(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	fail := func(context.Context) error { t.Error("asked without a watchdog"); return nil }
	t.Setenv("NOTIFY_SOCKET", "")
	n := FromEnv()
	if n != nil {
		t.Errorf("a notifier without a socket: %+v", n)
	}
	n.Ready(quiet)
	n.Stopping(quiet)
	if err := n.Run(ended, quiet, fail); err != nil {
		t.Error(err)
	}
	listen(t, time.Second)
	t.Setenv("WATCHDOG_PID", "1")
	if err := FromEnv().Run(ended, quiet, fail); err != nil {
		t.Error(err)
	}
	listen(t, 0)
	if err := FromEnv().Run(ended, quiet, fail); err != nil {
		t.Error(err)
	}
}
