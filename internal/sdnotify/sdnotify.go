// Package sdnotify reports to systemd that a service is up, that it is alive, and that it stops (sd_notify(3)). A service that systemd
// has not asked to report, or that runs without systemd, reports nothing.
//
// The watchdog is fed only while the service's own probe succeeds. When it is not fed for the unit's WatchdogSec, systemd ends the
// process with SIGABRT, for which Go prints what each goroutine was doing, and starts it again.
package sdnotify

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Notifier reports to one socket. Its methods do nothing on a nil Notifier.
type Notifier struct {
	addr     *net.UnixAddr
	watchdog time.Duration // of the unit; 0: none
}

// FromEnv returns the notifier that systemd asks for in the environment, nil when it asks for none. It takes the variables out of the
// environment, because a child that reported in this process' name would be believed where NotifyAccess is all.
func FromEnv() *Notifier {
	socket, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails for malformed names only
	}
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return nil // also that of a machine (vsock), which systemd gives to no service
	}
	n := &Notifier{addr: &net.UnixAddr{Name: socket, Net: "unixgram"}}
	if us, err := strconv.ParseInt(usec, 10, 64); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n
}

// Ready reports that the service is up.
func (n *Notifier) Ready(log *slog.Logger) { n.report(log, "READY=1") }

// Stopping reports that the service has begun to stop: from then on its time to stop counts, and the watchdog does not.
func (n *Notifier) Stopping(log *slog.Logger) { n.report(log, "STOPPING=1") }

func (n *Notifier) report(log *slog.Logger, state string) {
	if err := n.send(state); err != nil {
		log.Warn("state not reported to systemd", "state", state, "error", err)
	}
}

func (n *Notifier) send(state string) error {
	if n == nil {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

// Run feeds the watchdog until ctx ends, while alive returns nil. It is asked a third of the watchdog's time apart and has as long to
// answer; one that hangs feeds nothing. Without a watchdog Run only waits.
func (n *Notifier) Run(ctx context.Context, log *slog.Logger, alive func(ctx context.Context) error) error {
	if n == nil || n.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(n.watchdog / 3)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := within(ctx, n.watchdog/3, alive); err == nil {
			n.report(log, "WATCHDOG=1")
		} else if ctx.Err() == nil {
			log.Error("not alive: the watchdog is not fed, and ends this process when that goes on", "error", err, "watchdog", n.watchdog)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

func within(ctx context.Context, limit time.Duration, alive func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return alive(ctx)
}
