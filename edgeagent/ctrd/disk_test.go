package ctrd

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/storage"
)

// TestCollect checks that images go in the order of their last use until there is enough space; what is pinned, what a
// container uses and what a pod of this node names stays.
func TestCollect(t *testing.T) {
	b := newBench(t)
	r := b.runtime
	ctx := t.Context()
	load := func(name string, pinned bool) {
		t.Helper()
		if _, err := r.Import(ctx, runtimetest.Tar(t, name, runtimetest.Busybox(t))); err != nil {
			t.Fatal(err)
		}
		img, err := r.client.ImageService().Get(r.ns(ctx), name)
		if err != nil {
			t.Fatal(err)
		}
		if !pinned {
			img.Labels = nil
		}
		if _, err := r.client.ImageService().Update(r.ns(ctx), img, "labels"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"old", "older", "wanted", "running"} {
		load("petrel.test/"+name+":1", false)
	}
	load("petrel.test/pinned:1", true)
	b.pod("a", corev1.Container{Image: "petrel.test/running:1", Command: []string{"sh", "-c", "dd if=/dev/zero of=/f bs=1M count=3; sleep 1000"}})
	b.await("a", "running", isRunning)

	now := time.Now()
	c := Collection{Keep: []string{"petrel.test/wanted:1", "Not A Name"},
		LastUsed: map[string]time.Time{"petrel.test/old:1": now, "petrel.test/older:1": now}, MinAge: storage.MinAge}
	if gone, err := r.Collect(ctx, c); err != nil || len(gone) > 0 {
		t.Errorf("%v went that were used a moment ago, %v", gone, err)
	}
	c.MinAge = 0
	asked := 0
	c.Enough = func() bool { asked++; return asked > 1 }
	if gone, err := r.Collect(ctx, c); err != nil || len(gone) != 1 {
		t.Errorf("%v went, want one, %v", gone, err)
	}
	c.Enough = nil
	if gone, err := r.Collect(ctx, c); err != nil || len(gone) != 1 {
		t.Errorf("%v went, want one, %v", gone, err)
	}
	list, err := r.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, i := range list {
		left = append(left, i.Name)
	}
	if want := []string{testImage, "petrel.test/pinned:1", "petrel.test/running:1", "petrel.test/wanted:1"}; !slices.Equal(left, want) {
		t.Errorf("left: %v, want %v", left, want)
	}

	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(20 * time.Millisecond) {
		all, err := r.Containers(ctx, "a")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		n, err := r.DiskUsage(ctx, all[0].ID)
		if err != nil || n > 5<<20 {
			t.Fatalf("a container that writes 3 MiB: %d bytes, %v", n, err)
		}
		if n >= 3<<20 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a container that has written 3 MiB: %d bytes", n)
		}
	}
	if _, err := r.DiskUsage(ctx, "none"); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("a container that is not there: %v", err)
	}
}

// endless answers with a body that never ends.
type endless struct{}

func (endless) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(zeros{})}, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestPullLeavesRoom checks that a layer that does not fit ends where the floor of the disk begins.
func TestPullLeavesRoom(t *testing.T) {
	full, asked := errors.New("full"), 0
	resp, err := roomy{RoundTripper: endless{}, spare: func() error {
		if asked++; asked > 3 {
			return full
		}
		return nil
	}}.RoundTrip(nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if !errors.Is(err, full) || n > 5*roomyPortion {
		t.Errorf("%d bytes came, then: %v", n, err)
	}
	r := private(t)
	r.cfg.Disk.Floor = storage.Amount{Bytes: 1 << 60}
	if _, err := r.Pull(t.Context(), "127.0.0.1:9/app:1", nil); err == nil || errors.Is(err, cruntime.ErrUnreachable) || !strings.Contains(err.Error(), "this node keeps free") {
		t.Errorf("a pull to a short disk: %v", err)
	}
}
