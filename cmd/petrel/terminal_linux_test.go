package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/internal/cli/screen/screentest"
)

// terminal is a pseudo-terminal on which petrel runs, as a person starts it.
type terminal struct {
	t      *testing.T
	master *os.File // the window and the keyboard
	cmd    *exec.Cmd
	done   chan error // the end of petrel, when all that it wrote has been read

	mu  sync.Mutex
	out bytes.Buffer // all that was written to it
}

// patience is how long a busy machine may take for what a test waits for.
const patience = time.Minute

// onTerminal starts petrel on a terminal of that size.
func onTerminal(t *testing.T, env []string, columns, lines uint16, args ...string) *terminal {
	t.Helper()
	tty, master := screentest.Terminal(t, columns, lines)
	defer tty.Close() // petrel's own is the last one: its end is the end of what is read
	x := &terminal{t: t, master: master, done: make(chan error, 1)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x.cmd = exec.Command(self)
	x.cmd.Args = append([]string{"petrel"}, args...)
	x.cmd.Env = append([]string{"TERM=xterm", "PATH=" + os.Getenv("PATH")}, env...)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		x.read()
		x.done <- x.cmd.Wait()
	}()
	t.Cleanup(func() { _ = x.cmd.Process.Kill() })
	return x
}

func (x *terminal) read() {
	for buf := make([]byte, 4096); ; {
		n, err := x.master.Read(buf)
		x.mu.Lock()
		x.out.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// shows waits until the terminal has been written all of these.
func (x *terminal) shows(wants ...string) {
	x.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		missing := ""
		for _, w := range wants {
			if !strings.Contains(x.text(), w) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("no %q in %q", missing, x.text())
		}
	}
}

// ends waits for the end of petrel, and returns its exit code.
func (x *terminal) ends() int {
	x.t.Helper()
	select {
	case err := <-x.done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			x.t.Fatal(err)
		}
		return x.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		x.t.Fatalf("it goes on after %q", x.text())
		return -1
	}
}

func (x *terminal) types(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// TestTerminals runs commands on terminals of several kinds: what a pipe gets is in the scripts.
func TestTerminals(t *testing.T) {
	dir := t.TempDir()
	kubeconfig, stop, err := startHub(dir + "/hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	env := []string{"HOME=" + dir, "KUBECONFIG=" + kubeconfig}
	manifest := func(t *testing.T, name, value string) string {
		t.Helper()
		path := dir + "/" + name + ".json"
		text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": %q}, "data": {"colour": %q}}`, name, value)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	petrel := func(t *testing.T, args ...string) string {
		t.Helper()
		x := onTerminal(t, append(env, "TERM=dumb"), 80, 24, args...)
		if code := x.ends(); code != 0 {
			t.Fatalf("petrel %v ends with %d: %s", args, code, x.text())
		}
		return x.text()
	}
	petrel(t, "apply", "-f", manifest(t, "first", "blue"))

	t.Run("get -w in place, on a narrow terminal", func(t *testing.T) {
		x := onTerminal(t, env, 20, 8, "get", "cm", "-w")
		x.shows("\x1b[2J\x1b[H", "first ")
		petrel(t, "apply", "-f", manifest(t, "second", "blue"))
		x.shows("second ")
		before := strings.Count(x.text(), "\x1b[2J")
		if before != 1 {
			t.Errorf("cleared %d times: %q", before, x.text())
		}
		for line := range strings.SplitSeq(x.text(), "\r\n") {
			line = line[strings.LastIndex(line, "\x1b[H")+1:]
			if n := len([]rune(strings.NewReplacer("\r", "", "[H", "", "\x1b[K", "", "\x1b[J", "").Replace(line))); n > 20 {
				t.Errorf("%d characters in %q", n, line)
			}
		}
		screentest.Resize(t, x.master, 60, 8)
		x.shows("\x1b[2J\x1b[HNAME", "DATA   AGE")
		petrel(t, "delete", "cm", "second")
		x.types("\x03")
		if code := x.ends(); code != 130 {
			t.Errorf("Ctrl-C ends it with %d", code)
		}
	})
	t.Run("get -w on a dumb terminal", func(t *testing.T) {
		x := onTerminal(t, append(env, "TERM=dumb"), 80, 24, "get", "cm", "-w")
		x.shows("first ")
		petrel(t, "apply", "-f", manifest(t, "third", "blue"))
		x.shows("third ")
		x.types("\x03")
		if code := x.ends(); code != 130 || strings.Contains(x.text(), "\x1b") {
			t.Errorf("ended with %d after %q", code, x.text())
		}
	})
	t.Run("a preview", func(t *testing.T) {
		red := manifest(t, "first", "red")
		x := onTerminal(t, env, 80, 24, "apply", "-f", red, "--preview")
		x.shows("\x1b[31m-  colour: blue\x1b[0m", "\x1b[32m+  colour: red\x1b[0m", "Do it? [y/N] ")
		x.types("\x03")
		if code := x.ends(); code != 130 {
			t.Errorf("Ctrl-C ends it with %d", code)
		}
		if got := petrel(t, "get", "cm", "first", "-o", "jsonpath={.data.colour}"); got != "blue" {
			t.Errorf("it was changed to %s", got)
		}
		x = onTerminal(t, append(env, "NO_COLOR=1"), 80, 24, "apply", "-f", red, "--preview")
		x.shows("Do it? [y/N] ")
		x.types("y\n")
		if code := x.ends(); code != 0 || strings.Contains(x.text(), "\x1b") {
			t.Errorf("ended with %d after %q", code, x.text())
		}
		x = onTerminal(t, append(env, "NO_COLOR=1"), 80, 24, "diff", "-f", manifest(t, "first", "green"), "--color", "always")
		if code := x.ends(); code != 1 || !strings.Contains(x.text(), "\x1b[31m-  colour: red") {
			t.Errorf("ended with %d after %q", code, x.text())
		}
	})
	t.Run("a rollout as a bar", func(t *testing.T) {
		petrel(t, "create", "deployment", "web", "--image", "example.org/web:1", "--replicas", "2")
		x := onTerminal(t, env, 60, 24, "rollout", "status", "deploy/web")
		x.shows("\rdeployment.apps/web [", "] 0/2, 2 without a node\x1b[K")
		if strings.Contains(x.text(), "Waiting for deployment") {
			t.Errorf("lines beside the bar: %q", x.text())
		}
		x.types("\x03")
		if code := x.ends(); code != 130 || !strings.HasSuffix(x.text(), "\r\x1b[K") {
			t.Errorf("ended with %d after %q", code, x.text())
		}
	})
}
