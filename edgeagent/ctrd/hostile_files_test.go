package ctrd

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// runScript runs a shell script in a pod of its own and returns what it has printed once that holds until.
func runScript(t *testing.T, r *Runtime, spec cruntime.ContainerSpec, script, until string) string {
	t.Helper()
	sb, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: spec.PodUID, Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removePod(t, r, spec.PodUID) })
	if spec.Image == "" {
		spec.Image = testImage
	}
	spec.Name, spec.SandboxID, spec.Command, spec.LogPath = "c", sb.ID, []string{"/bin/sh", "-c", script}, filepath.Join(t.TempDir(), "c.log")
	if _, err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(20 * time.Millisecond) {
		out := readLog(r)(t, spec.LogPath)
		if strings.Contains(out, until) {
			return out
		}
		if time.Now().After(end) {
			t.Fatalf("%q is never printed, but: %s", until, out)
		}
	}
}

// apart is a private runtime with a namespace of containerd that no other agent on this machine has: one of an older
// version would look at what these tests forge, and fall for it.
func apart(t *testing.T) *Runtime {
	t.Helper()
	need(t)
	data, run := dirs(t)
	r, err := Open(t.Context(), Config{Private: true, DataDir: data, RunDir: run, Namespace: "petrel-hostile", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, r.Close(true)); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.Import(t.Context(), runtimetest.Tar(t, testImage, runtimetest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	return r
}

// within fails the test when f takes longer than nobody's fault explains.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(runtimetest.Hope):
		t.Fatalf("%s hangs", what)
	}
}

// TestForgedShim checks that a process that calls itself a shim, in a container or of another program on the machine, is
// neither waited for nor read nor ended when a pod is removed.
func TestForgedShim(t *testing.T) {
	for name, file := range map[string]string{"fifo": "mkfifo config.json", "endless": "ln -s /dev/zero config.json", "huge": "truncate -s 1T config.json"} {
		t.Run(name, func(t *testing.T) {
			r := apart(t)
			runScript(t, r, cruntime.ContainerSpec{PodUID: "evil"}, "mkdir -p /tmp/containerd-shim /w; cd /w; "+file+
				"; cp /bin/busybox /tmp/containerd-shim/sh; exec /tmp/containerd-shim/sh -c 'echo forged; while :; do sleep 1; done' -namespace "+r.cfg.Namespace+" x", "forged")
			if _, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: "innocent", Hostname: "h"}); err != nil {
				t.Fatal(err)
			}
			within(t, "removing another pod", func() {
				if err := r.RemoveSandbox(context.Background(), "innocent"); err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("on the machine", func(t *testing.T) {
		r := apart(t)
		if _, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: "innocent", Hostname: "h"}); err != nil {
			t.Fatal(err)
		}
		// All that a process can choose is as a shim's: its program's name, its arguments, its directory's content.
		dir := t.TempDir()
		program := copyProgram(t, "sh", filepath.Join(dir, "containerd-shim-runc-v2"))
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"annotations":{"`+shimGroup+`":"innocent"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		other := &exec.Cmd{Path: program, Args: []string{program, "-c", "read never", "-namespace", r.cfg.Namespace, "x"}, Dir: dir, Stdin: silence(t)}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
		if got := r.shims("innocent"); len(got) > 0 {
			t.Errorf("taken for a shim: %v", got)
		}
		if err := r.RemoveSandbox(t.Context(), "innocent"); err != nil {
			t.Error(err)
		}
		if !running(other.Process.Pid) {
			t.Error("another program's process was ended")
		}
	})
}

func copyProgram(t *testing.T, name, to string) string {
	t.Helper()
	from, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o700); err != nil {
		t.Fatal(err)
	}
	return to
}

// silence is an input on which nothing ever comes, for the length of the test.
func silence(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}

// TestForgedContainerd checks that a process with the private containerd's arguments is not taken for it.
func TestForgedContainerd(t *testing.T) {
	r := private(t)
	program := copyProgram(t, "sh", filepath.Join(t.TempDir(), "containerd"))
	other := &exec.Cmd{Path: program, Args: []string{program, "-c", "read never", "--config", r.child.config(), "x"}, Stdin: silence(t)}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if got := r.child.alive(); len(got) != 1 || got[0] != r.containerdPID() {
		t.Errorf("alive: %v, want %d", got, r.containerdPID())
	}
	// In a container the same path can be a link that leads to the very file.
	runScript(t, r, cruntime.ContainerSpec{PodUID: "evil"}, fmt.Sprintf("mkdir -p %[1]s; ln -s %[2]s %[2]s; cp /bin/busybox /tmp/containerd; "+
		"exec /bin/sh -c 'echo forged; while :; do sleep 1; done' --config %[2]s x", filepath.Dir(r.child.config()), r.child.config()), "forged")
	if got := r.child.alive(); len(got) != 1 || got[0] != r.containerdPID() {
		t.Errorf("alive: %v, want %d", got, r.containerdPID())
	}
}

// TestOwnFilesAreBounded checks that whatever a pod's containers do to their own files costs the node next to nothing, and the
// pod's next start does not depend on it.
func TestOwnFilesAreBounded(t *testing.T) {
	r := private(t)
	files := r.Files("greedy")
	if _, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: "greedy", Hostname: "h", FilesRoom: 100}); err != nil {
		t.Fatal(err)
	}
	var mounts []cruntime.Mount
	for _, name := range []string{"hosts", "hostname", "resolv.conf", "message.c.0"} {
		if err := os.WriteFile(filepath.Join(files, name), []byte("text\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		mounts = append(mounts, cruntime.Mount{Source: filepath.Join(files, name), Target: "/etc/" + name})
	}
	out := runScript(t, r, cruntime.ContainerSpec{PodUID: "greedy", Hostname: "web", Mounts: mounts}, "truncate -s 1099511627776 /etc/hostname; "+
		"dd if=/dev/zero of=/etc/hosts bs=1M count=64 2>&1; dd if=/dev/zero of=/etc/message.c.0 bs=1M count=64 2>&1; echo name $HOSTNAME; echo done", "done")
	if !strings.Contains(out, "name web\n") {
		t.Errorf("the host name does not come from the pod: %s", out)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(files, &st); err != nil {
		t.Fatal(err)
	}
	if size := int64(st.Blocks) * int64(st.Bsize); st.Type != unix.TMPFS_MAGIC || size > 1<<20 {
		t.Errorf("a pod's own files take up to %d bytes of a file system of type %x", size, st.Type)
	}
	// The sandbox is found again, as by the next agent, and more room is made where the agent needs it.
	if _, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: "greedy", Hostname: "h", FilesRoom: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(files, &st); err != nil || int64(st.Blocks)*int64(st.Bsize) < 1<<20 {
		t.Errorf("room for 1 MiB of hosts: %d blocks, %v", st.Blocks, err)
	}
}

// TestRoomForMessages checks that whatever size the kernel's pages have, a pod has room for the last words of many containers.
func TestRoomForMessages(t *testing.T) {
	for _, page := range []int64{4 << 10, 16 << 10, 64 << 10} {
		const own = 3 // hosts, hostname, resolv.conf: a page each, and what is beyond
		if pages := filesSize(300, page)/page - own; pages < 64 {
			t.Errorf("pages of %d bytes: room for %d messages, want 64", page, pages)
		}
	}
}

// hostileImage is an image in which /etc/passwd is a FIFO, or a link.
func hostileImage(t *testing.T, ref, link string) io.Reader {
	t.Helper()
	h := tar.Header{Name: "etc/passwd", Typeflag: tar.TypeFifo, Mode: 0o644}
	if link != "" {
		h.Typeflag, h.Linkname = tar.TypeSymlink, link
	}
	return runtimetest.Tar(t, ref, runtimetest.WithEntry(t, runtimetest.Busybox(t), h, nil))
}
