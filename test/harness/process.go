package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a running petrel; its output goes to the test's log when the test fails.
type Process struct {
	Cmd  *exec.Cmd
	Out  *LockedBuffer
	Done chan error
}

type LockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *LockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *LockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func Start(t *testing.T, m Machine, name string, args ...string) *Process {
	t.Helper()
	return StartWith(t, m, nil, name, args...)
}

// StartWith is Start with variables ("NAME=value") that come before those of this process.
func StartWith(t *testing.T, m Machine, env []string, name string, args ...string) *Process {
	t.Helper()
	p := &Process{Cmd: m.Command(context.Background(), Petrel, args...), Out: &LockedBuffer{}, Done: make(chan error, 1)}
	p.Cmd.Stdout, p.Cmd.Stderr = p.Out, p.Out
	if env != nil {
		p.Cmd.Env = append(os.Environ(), env...)
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.Done <- p.Cmd.Wait() }()
	t.Cleanup(func() {
		p.Stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("--- output of %s\n%s", name, Tail(p.Out.String(), 60))
		}
	})
	return p
}

// Stop sends sig and waits for the end; a process that ignores it for 20 s is killed.
func (p *Process) Stop(sig syscall.Signal) {
	_ = p.Cmd.Process.Signal(sig) // it may have ended
	select {
	case err := <-p.Done:
		p.Done <- err
	case <-time.After(20 * time.Second):
		_ = p.Cmd.Process.Kill()
		err := <-p.Done
		p.Done <- err
	}
}

// Interrupt is Ctrl-C: the program ends by itself, and calls that success.
func (p *Process) Interrupt(t *testing.T) {
	t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.Done:
		p.Done <- err
		if err != nil {
			t.Errorf("after Ctrl-C: %v\n%s", err, Tail(p.Out.String(), 20))
		}
	case <-time.After(leastHope):
		t.Fatalf("Ctrl-C does not end it\n%s", Tail(p.Out.String(), 20))
	}
}

func Tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// leastHope is the shortest wait before a test fails: machines that are busy with other things are slow, which is no fault of what
// is tested.
const leastHope = 2 * time.Minute

// Eventually waits until f returns nil. hope is how long to wait before the test fails, leastHope at least; no promise of speed.
func Eventually(t *testing.T, hope time.Duration, what string, f func() error) {
	t.Helper()
	hope = max(hope, leastHope)
	began := time.Now()
	deadline := began.Add(hope)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", hope, what, err)
		}
		// f is mostly a kubectl, which takes a good part of a second of a processor that what is waited for needs.
		time.Sleep(min(max(time.Since(began)/4, 100*time.Millisecond), time.Second))
	}
}
