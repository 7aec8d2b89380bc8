package ctrd

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/edgeagent/programs"
)

const testImage = "petrel.test/busybox:1"

// need skips unless this machine can run containers.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		runtimetest.NeedOr(t, "needs root")
	}
	if len(programs.Embedded()) > 0 {
		return
	}
	for _, b := range []string{"containerd", "runc"} {
		if _, err := exec.LookPath(b); err != nil {
			runtimetest.NeedOr(t, b+" is not installed")
		}
	}
}

// dirs makes a data and a run directory for one private containerd.
func dirs(t *testing.T) (data, run string) {
	t.Helper()
	data = t.TempDir()
	run, err := os.MkdirTemp("/run", "petrel-ctrd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Containers that containerd has lost, or a test that has failed, leave mounts.
		if err := errors.Join(mount.UnmountRecursive(run, unix.MNT_DETACH), os.RemoveAll(run)); err != nil {
			t.Error(err)
		}
	})
	return data, run
}

// open opens a runtime with a private containerd; the returned function ends its Run without stopping containerd.
func open(t *testing.T, data, run string) (*Runtime, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := Open(ctx, Config{Private: true, DataDir: data, RunDir: run, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// private opens a runtime for one test and clears it away at its end.
func private(t *testing.T) *Runtime {
	t.Helper()
	need(t)
	data, run := dirs(t)
	r, end := open(t, data, run)
	t.Cleanup(func() {
		end()
		if err := r.Close(true); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.Import(context.Background(), runtimetest.Tar(t, testImage, runtimetest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	return r
}

func readLog(r *Runtime) func(t *testing.T, path string) string {
	return func(t *testing.T, path string) string {
		var b strings.Builder
		if err := r.Logs().Read(context.Background(), path, podlog.Options{Tail: -1}, &b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
}

func TestRuntime(t *testing.T) {
	r := private(t)
	runtimetest.Run(t, func(*testing.T) runtimetest.Subject {
		return runtimetest.Subject{Runtime: r, Image: testImage, ReadLog: readLog(r)}
	})
}

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

func silent() *log.Logger { return log.New(io.Discard, "", 0) }
