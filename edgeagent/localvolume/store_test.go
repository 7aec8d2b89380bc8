package localvolume_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/edgeagent/localvolume"
	"petrel.dev/petrel/internal/wire"
)

// A directory is made once and whole, stays as it is, and goes with all that is in it.
func TestStore(t *testing.T) {
	s := &localvolume.Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	if err := s.Remove("pvc-1"); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	dir, err := s.Make("pvc-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "row"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Make("pvc-1"); err != nil || again != dir {
		t.Errorf("%s, %v", again, err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("what the pod has set was changed: %v, %v", fi.Mode(), err)
	}
	if err := s.Remove("pvc-1"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// No handle leads out of the directory of volumes, neither to make nor to remove something.
func TestNoWayOut(t *testing.T) {
	base := t.TempDir()
	s := &localvolume.Store{Dir: filepath.Join(base, "volumes")}
	kept := filepath.Join(base, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, handle := range []string{"", ".", "..", "../kept", "a/b", ".hidden", "x/../../kept"} {
		if _, err := s.Make(handle); err == nil {
			t.Errorf("%q is made", handle)
		}
		if err := s.Remove(handle); err == nil {
			t.Errorf("%q is removed", handle)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// reports is the hub's side.
type reports struct {
	mu   sync.Mutex
	all  map[string]wire.VolumeReport // by UID
	sent int
	fail error
}

func (r *reports) Report(o wire.Object) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	var v wire.VolumeReport
	if err := json.Unmarshal(o.Data, &v); err != nil {
		return err
	}
	r.all[o.UID] = v
	r.sent++
	return nil
}

func (r *reports) Forget(id wire.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, id.UID)
	return nil
}

func (r *reports) get(uid string) (wire.VolumeReport, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[uid], r.sent
}

// Only what the hub names is removed: when no pod has it any more, and the report stands until the hub does not ask again.
func TestReclaim(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &localvolume.Store{Dir: filepath.Join(dir, "volumes")}
		for _, h := range []string{"pvc-1", "pvc-2"} {
			if _, err := s.Make(h); err != nil {
				t.Fatal(err)
			}
		}
		hub := &reports{all: map[string]wire.VolumeReport{}}
		var mu sync.Mutex
		used := true
		r := localvolume.NewReclaimer(localvolume.Config{Store: s, Report: hub.Report, Forget: hub.Forget, Log: slog.New(slog.DiscardHandler),
			Used: func(string) bool { mu.Lock(); defer mu.Unlock(); return used }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		defer func() { cancel(); <-done }()
		there := func(h string) bool { _, err := os.Stat(s.Path(h)); return err == nil }

		r.Apply(map[string]wire.Reclaim{"u1": {Volume: "pvc-1", Handle: "pvc-1"}, "u9": {Volume: "gone", Handle: "pvc-9"}, "u8": {Volume: "bad", Handle: "../x"}})
		time.Sleep(time.Minute)
		if v, _ := hub.get("u1"); v.Gone || !there("pvc-1") {
			t.Error("a volume is removed that a pod has")
		}
		mu.Lock()
		used = false
		mu.Unlock()
		time.Sleep(5 * time.Minute)
		if v, _ := hub.get("u1"); !v.Gone || there("pvc-1") {
			t.Errorf("%+v, there: %v", v, there("pvc-1"))
		}
		if v, _ := hub.get("u9"); !v.Gone {
			t.Errorf("one that is not there: %+v", v)
		}
		v, n := hub.get("u8")
		if v.Gone || v.Error == "" {
			t.Errorf("one that cannot be: %+v", v)
		}
		time.Sleep(time.Hour)
		if _, m := hub.get("u8"); m != n {
			t.Errorf("%d reports of one failure", m-n)
		}
		if !there("pvc-2") {
			t.Error("a volume is removed that nothing named")
		}
		r.Apply(nil)
		if v, _ := hub.get("u1"); v.Gone {
			t.Error("the report stands after the instruction")
		}
	})
}

// A report that cannot be kept is made later.
func TestReportLater(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		hub := &reports{all: map[string]wire.VolumeReport{}, fail: errors.New("the disk is full")}
		r := localvolume.NewReclaimer(localvolume.Config{Store: &localvolume.Store{Dir: dir}, Report: hub.Report, Forget: hub.Forget,
			Log: slog.New(slog.DiscardHandler), Used: func(string) bool { return false }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		defer func() { cancel(); <-done }()
		r.Apply(map[string]wire.Reclaim{"u1": {Volume: "pvc-1", Handle: "pvc-1"}})
		time.Sleep(time.Minute)
		hub.mu.Lock()
		hub.fail = nil
		hub.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if v, _ := hub.get("u1"); !v.Gone {
			t.Error("not reported")
		}
	})
}
