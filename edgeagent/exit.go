package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/contain"
)

// lockDir keeps a second agent out of a data directory.
func lockDir(dir string) (func(), error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("agent: another agent uses %s; stop it, or choose another data directory", dir)
	}
	return func() { f.Close() }, nil
}

// stopLimit is how long the agent's parts may take to stop, each of which has shorter limits of its own.
const stopLimit = 40 * time.Second

// atMost runs f and returns its error, or another when f takes longer than limit; f then goes on in its goroutine.
func atMost(limit time.Duration, what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- contain.Do(nil, "agent/stop", what, f) }()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("agent: %s has taken more than %s, leaving without it", what, limit)
	}
}

// stopGrace is how long pods may take to end when the agent stops them on its way out.
const stopGrace = 10 * time.Second

// stopPods ends all containers when the agent is to leave none behind. The pods stay wanted: the next agent starts them.
func (a *Agent) stopPods() error {
	if !a.cfg.StopPodsOnExit {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace+20*time.Second)
	defer cancel()
	sig, deadline := syscall.Signal(0), time.Now().Add(stopGrace)
	signalled := map[string]syscall.Signal{}
	for {
		list, err := a.rt.Containers(ctx, "")
		if err != nil {
			return fmt.Errorf("stopping pods: %w", err)
		}
		running := 0
		for _, c := range list {
			if c.State != cruntime.Running {
				continue
			}
			running++
			if last, done := signalled[c.ID]; done && last == sig {
				continue
			}
			signalled[c.ID] = sig
			if err := a.rt.Signal(ctx, c.ID, sig); err != nil && !errors.Is(err, cruntime.ErrNotFound) {
				return fmt.Errorf("stopping pods: %w", err)
			}
		}
		if running == 0 {
			break
		}
		if time.Now().After(deadline) {
			sig = syscall.SIGKILL
		}
		select {
		case <-ctx.Done():
			return errors.New("stopping pods: some containers do not end")
		case <-time.After(100 * time.Millisecond):
		}
	}
	return a.releaseAll(ctx)
}

// releaseAll removes what the pods have on the machine: mounts, namespaces, interfaces. Their containers' records and logs
// stay. It runs after the data plane has ended, and so takes the last one's network.
func (a *Agent) releaseAll(ctx context.Context) error {
	entries, err := os.ReadDir(a.podsDir())
	if err != nil {
		return err
	}
	a.mu.Lock()
	network := a.lastNetwork
	a.mu.Unlock()
	var errs []error
	volumes := &volume.Mounter{Dir: a.podsDir()}
	for _, e := range entries {
		errs = append(errs, a.rt.RemoveSandbox(ctx, e.Name()), volumes.Remove(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(e.Name())}}))
	}
	if network != nil {
		errs = append(errs, network.Cleanup(ctx))
	}
	return errors.Join(errs...)
}
