package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// interruption is how a run of install.sh ends early.
type interruption struct {
	name   string
	signal syscall.Signal
	// alone has only the shell get it, and what the shell waits for goes on: as by `kill`, and not by ctrl-C or a closed terminal.
	alone bool
}

var interruptions = []interruption{
	{"ctrl-C", syscall.SIGINT, false}, {"hangup", syscall.SIGHUP, false}, {"termination", syscall.SIGTERM, false},
	{"kill", syscall.SIGTERM, true}, {"ctrl-C alone", syscall.SIGINT, true},
}

// end sends the signal, lets what the shell waits for go on when only the shell got it, and returns what install.sh printed.
func (i interruption) end(t *testing.T, cmd *exec.Cmd, out *bytes.Buffer, goOn func()) string {
	t.Helper()
	pid := -cmd.Process.Pid
	if i.alone {
		pid = cmd.Process.Pid
	}
	if err := syscall.Kill(pid, i.signal); err != nil {
		t.Fatal(err)
	}
	if i.alone {
		goOn()
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("install.sh succeeds though it is interrupted:\n%s", out)
	}
	return out.String()
}

// begin starts install.sh in a process group of its own, as a shell with job control does.
func (c *computer) begin(args ...string) (*exec.Cmd, *bytes.Buffer) {
	c.t.Helper()
	var out bytes.Buffer
	cmd := c.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A shell cannot trap what is ignored when it starts, as SIGHUP is below nohup. What this process handles is not ignored in its child.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(handled)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return cmd, &out
}

// interrupted runs the test with each shell and each interruption, on a computer that has version 1 of the release.
func interrupted(t *testing.T, test func(t *testing.T, r *release, c *computer, i interruption)) {
	for shell := range shells {
		for _, i := range interruptions {
			t.Run(shell+" "+i.name, func(t *testing.T) {
				t.Parallel()
				r := newRelease(t)
				c := newComputer(t, shell, "x86_64", "minisign", "curl")
				c.works("--from", r.dir, "--key", r.pub)
				test(t, r, c, i)
				if got := c.installed(); got != "petrel v1 linux-amd64" {
					t.Errorf("after the interruption %q is installed", got)
				}
				c.clean()
			})
		}
	}
}

// TestInstallInterruptedDownload interrupts install.sh when it has half of the archive.
func TestInstallInterruptedDownload(t *testing.T) {
	interrupted(t, func(t *testing.T, r *release, c *computer, i interruption) {
		r.write(t, "petrel-linux-amd64", []byte("#!/bin/sh\necho petrel v2\n"))
		r.write(t, "petrel-linux-amd64.tar.gz", archive(t, "#!/bin/sh\necho petrel v2\n"))
		r.sign(t, "petrel v2")
		half, goOn := make(chan struct{}), make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.HasSuffix(req.URL.Path, ".tar.gz") {
				http.FileServer(http.Dir(r.dir)).ServeHTTP(w, req)
				return
			}
			text, err := os.ReadFile(r.file("petrel-linux-amd64.tar.gz"))
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write(text[:len(text)/2])
			_ = http.NewResponseController(w).Flush()
			close(half)
			select {
			case <-goOn: // a whole one: only the signal keeps it from being installed
				_, _ = w.Write(text[len(text)/2:])
			case <-req.Context().Done():
			}
		}))
		t.Cleanup(server.Close)
		cmd, out := c.begin("--from", server.URL, "--key", r.pub)
		<-half
		i.end(t, cmd, out, func() { close(goOn) })
	})
}

// TestInstallInterruptedCheck interrupts install.sh when the new binary lies beside the old one, and runs for the first time. Then a run that
// is not interrupted installs it.
func TestInstallInterruptedCheck(t *testing.T) {
	interrupted(t, func(t *testing.T, r *release, c *computer, i interruption) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		program := "#!/bin/sh\nif [ -p " + fifo + " ]; then read -r line <" + fifo + "; fi\necho petrel v2\n"
		r.write(t, "petrel-linux-amd64", []byte(program))
		r.write(t, "petrel-linux-amd64.tar.gz", archive(t, program))
		r.sign(t, "petrel v2")
		cmd, out := c.begin("--from", r.dir, "--key", r.pub)
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns when the binary runs
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		text := i.end(t, cmd, out, func() { _, _ = w.WriteString("go on\n") })
		if strings.Contains(text, " is petrel v2.") {
			t.Errorf("install.sh says that it has installed something:\n%s", text)
		}
		if err := os.Remove(fifo); err != nil {
			t.Fatal(err)
		}
		again := newComputer(t, "dash", "x86_64", "minisign")
		again.works("--from", r.dir, "--key", r.pub)
		if got := again.installed(); got != "petrel v2" {
			t.Errorf("a run that is not interrupted installs %q", got)
		}
	})
}

// TestInstallAfterPowerCut checks that what a run left that could not clean up is removed after a day, and not what another run uses now.
func TestInstallAfterPowerCut(t *testing.T) {
	r := newRelease(t)
	for shell := range shells {
		c := newComputer(t, shell, "x86_64", "find")
		old, used := filepath.Join(c.to, ".petrel-install.abcdef"), filepath.Join(c.to, ".petrel-install.ghijkl")
		for _, dir := range []string{old, used} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "petrel"), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		yesterday := time.Now().Add(-25 * time.Hour)
		if err := os.Chtimes(old, yesterday, yesterday); err != nil {
			t.Fatal(err)
		}
		if out, err := c.run("--from", r.dir, "--digest-only"); err != nil {
			t.Fatalf("%s: %v\n%s", shell, err, out)
		}
		if _, err := os.Stat(old); err == nil {
			t.Errorf("%s: %s is left", shell, old)
		}
		if _, err := os.Stat(filepath.Join(used, "petrel")); err != nil {
			t.Errorf("%s: what another run uses: %v", shell, err)
		}
	}
}
