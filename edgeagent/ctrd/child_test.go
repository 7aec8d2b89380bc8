package ctrd

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/programs"
	"petrel.dev/petrel/edgeagent/storage"
)

// TestDamagedStore checks that a power cut has left garbage where containerd's database was.
func TestDamagedStore(t *testing.T) {
	need(t)
	for name, damage := range map[string]func(path string) error{
		"garbage": func(p string) error { return os.WriteFile(p, make([]byte, 128<<10), 0o600) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"torn":    func(p string) error { return os.Truncate(p, 4096*3) },
	} {
		t.Run(name, func(t *testing.T) {
			data, run := dirs(t)
			r, end := open(t, data, run)
			ctx := context.Background()
			if _, err := r.Import(ctx, runtimetest.Tar(t, testImage, runtimetest.Busybox(t))); err != nil {
				t.Fatal(err)
			}
			end()
			if err := r.Close(true); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(data, "containerd", "root", "io.containerd.metadata.v1.bolt", "meta.db")); err != nil {
				t.Fatal(err)
			}
			r, end = open(t, data, run)
			defer func() {
				end()
				r.Close(true)
			}()
			if _, err := r.Image(ctx, testImage); err != nil && !errors.Is(err, cruntime.ErrNotFound) {
				t.Error(err)
			}
			if _, err := r.Import(ctx, runtimetest.Tar(t, testImage, runtimetest.Busybox(t))); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Image(ctx, testImage); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestContainerdDies checks what follows: it is started again, and who it serves hears of what happened meanwhile.
func TestContainerdDies(t *testing.T) {
	r := private(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sb, err := r.Sandbox(ctx, cruntime.SandboxSpec{PodUID: "dies", Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.Start(ctx, cruntime.ContainerSpec{PodUID: "dies", Name: "c", SandboxID: sb.ID, Image: testImage, Command: []string{"/bin/sleep", "1000"},
		LogPath: filepath.Join(t.TempDir(), "c.log")})
	if err != nil {
		t.Fatal(err)
	}
	r.child.mu.Lock()
	pid := r.child.pid
	r.child.mu.Unlock()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(runtimetest.Hope)
	for {
		list, err := r.Containers(ctx, "dies")
		if err == nil && len(list) == 1 && list[0].State == cruntime.Running {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v", list, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	events := r.Events(ctx)
	time.Sleep(time.Second) // the subscription comes back a moment after containerd
	if err := r.Signal(ctx, id, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for heard := false; !heard; {
		select {
		case uid := <-events:
			list, err := r.Containers(ctx, "dies")
			heard = err == nil && len(list) == 1 && list[0].State == cruntime.Exited && (uid == "" || uid == "dies")
		case <-time.After(runtimetest.Hope):
			t.Fatal("no event tells of the end")
		}
	}
	if err := errors.Join(r.Remove(ctx, id), r.RemoveSandbox(ctx, "dies")); err != nil {
		t.Error(err)
	}
}

func TestNoMemoryCgroup(t *testing.T) {
	r := private(t)
	r.cgroups.Memory = false
	ctx := context.Background()
	_, err := r.Start(ctx, cruntime.ContainerSpec{PodUID: "x", Name: "c", Image: testImage, Resources: cruntime.Resources{MemoryLimit: 1 << 20}})
	if !errors.Is(err, cruntime.ErrConfig) {
		t.Errorf("a memory limit that cannot be kept: %v", err)
	}
	if reason, _ := r.NoMemoryLimits(); reason == "" {
		t.Error("memory limits are promised")
	}
}

func TestImages(t *testing.T) {
	r := private(t)
	ctx := context.Background()
	list, err := r.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != testImage || !list[0].Pinned || list[0].Size == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	if gone, err := r.Collect(ctx, Collection{}); err != nil || len(gone) > 0 {
		t.Errorf("pruned %v, %v: an import is pinned", gone, err)
	}
	img, err := r.client.ImageService().Get(r.ns(ctx), testImage)
	if err != nil {
		t.Fatal(err)
	}
	img.Labels = nil
	if _, err := r.client.ImageService().Update(r.ns(ctx), img, "labels"); err != nil {
		t.Fatal(err)
	}
	if gone, err := r.Collect(ctx, Collection{}); err != nil || len(gone) != 1 {
		t.Errorf("pruned %v, %v", gone, err)
	}
	if _, err := r.Image(ctx, testImage); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	for _, junk := range []string{"", "not a tar", string(make([]byte, 4096))} {
		if names, err := r.Import(ctx, strings.NewReader(junk)); err == nil {
			t.Errorf("%d bytes of junk give %v", len(junk), names)
		}
	}
}

// TestPackedArchives (field case 17): archives are imported however they are compressed, or the error says what to do.
func TestPackedArchives(t *testing.T) {
	r := private(t)
	ctx := context.Background()
	for _, c := range []struct{ ref, format string }{{"petrel.test/gz:1", "gzip"}, {"petrel.test/zst:1", "zstd"}} {
		var packed bytes.Buffer
		var w io.WriteCloser = gzip.NewWriter(&packed)
		if c.format == "zstd" {
			var err error
			if w, err = zstd.NewWriter(&packed); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(w, runtimetest.Tar(t, c.ref, runtimetest.Busybox(t))); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		whole := packed.Bytes()
		if names, err := r.Import(ctx, bytes.NewReader(whole[:len(whole)/2])); err == nil {
			t.Errorf("%s, cut in half: %v", c.format, names)
		}
		if names, err := r.Import(ctx, &packed); err != nil || len(names) != 1 || names[0] != c.ref {
			t.Errorf("%s: %v, %v", c.format, names, err)
		}
		if _, err := r.Image(ctx, c.ref); err != nil {
			t.Errorf("%s: %v", c.format, err)
		}
	}
	if _, err := r.Import(ctx, strings.NewReader("\xfd7zXZ\x00...")); err == nil || !strings.Contains(err.Error(), "xz -dc FILE") {
		t.Errorf("xz: %v", err)
	}
	r.cfg.Disk.Floor = storage.Amount{Bytes: 1 << 60}
	if _, err := r.Import(ctx, runtimetest.Tar(t, "petrel.test/much:1", runtimetest.Busybox(t))); err == nil || !strings.Contains(err.Error(), "this node keeps free") {
		t.Errorf("a disk without room: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	need(t)
	_, err := Open(context.Background(), Config{Address: "/run/no-such.sock", DataDir: t.TempDir(), RunDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("a socket that is not there is no error")
	}
	if len(programs.Embedded()) > 0 {
		return // nothing of the machine's is needed
	}
	t.Setenv("PATH", "/nowhere")
	_, err = Open(context.Background(), Config{Private: true, DataDir: t.TempDir(), RunDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "apt-get install containerd") {
		t.Errorf("without containerd: %v", err)
	}
}
