package edgeagent

import (
	"context"
	"strings"
	"sync"
	"time"

	"petrel.dev/petrel/edgeagent/ctrd"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/contain"
)

const (
	// collectPause is how long after a collection that found too little the next one is tried, while pods run.
	collectPause = 5 * time.Minute
	// settleDisk is how long containers may take to go before the disk is looked at again.
	settleDisk = 2 * time.Second
	// evictFirst and evictMost bound the pause after nobody could be evicted: to find that out reads all pods' files.
	evictFirst, evictMost = 10 * time.Second, 2 * time.Minute
)

// imageUse is when images were last seen in use; what happened before the agent started is not known. The zero value is
// ready.
type imageUse struct {
	mu   sync.Mutex
	last map[string]time.Time // guarded by mu; by full name; nil before the first
}

// note records that the images, as pods name them, are in use now. When there are too many names, all older ones are
// forgotten.
func (u *imageUse) note(refs []string, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil || len(u.last) > 4*maxImageReports {
		u.last = map[string]time.Time{}
	}
	for _, name := range ctrd.FullNames(refs) {
		u.last[name] = now
	}
}

func (u *imageUse) snapshot() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[string]time.Time, len(u.last))
	for k, v := range u.last {
		out[k] = v
	}
	return out
}

// keeper keeps free space on the node's disks: it removes containers that have ended, then images that nothing uses, then
// pods. Only the goroutine of keepDisk uses it.
type keeper struct {
	agent   *Agent         // never nil
	policy  storage.Policy // never changes
	collect time.Time      // images are not collected again before; zero: at once
	evict   time.Time      // no pod is evicted before; zero: at once
	pause   time.Duration  // after the last try that found no pod to evict; 0 after one that did
	short   bool           // the disk was short at the last look
}

// keepDisk keeps the disks above the floor until ctx ends. While there is space it reads two numbers of the kernel twice a
// minute.
func (a *Agent) keepDisk(ctx context.Context) error {
	k := &keeper{agent: a, policy: a.cfg.Disk}
	for {
		next := time.Minute // after a panic
		contain.Go(a.log, "agent/disk", "free space", func() { next = k.look(ctx) })
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

// makeRoom collects images before others are imported, which a short disk would refuse.
func (a *Agent) makeRoom(ctx context.Context) {
	if s, ok := a.worstDisk(); ok && a.cfg.Disk.Collect(s) > 0 {
		(&keeper{agent: a, policy: a.cfg.Disk}).images(ctx, s)
	}
}

// worstDisk measures the node's disks and returns the one that is the shortest.
func (a *Agent) worstDisk() (storage.Space, bool) {
	var worst storage.Space
	found := false
	for _, dir := range []string{a.dir, a.rt.ImageDir()} {
		s, err := storage.Look(dir)
		if err != nil {
			a.log.Warn("disk not measured", "error", err)
			continue
		}
		if !found || a.cfg.Disk.FloorBytes(s.Total)-s.Free > a.cfg.Disk.FloorBytes(worst.Total)-worst.Free || a.cfg.Disk.Pressure(s) && !a.cfg.Disk.Pressure(worst) {
			worst, found = s, true
		}
	}
	return worst, found
}

// freeBytes returns what is free on all disks that pods write to.
func (a *Agent) freeBytes() int64 {
	pods, err := storage.Look(a.dir)
	if err != nil {
		return 0
	}
	if images, err := storage.Look(a.rt.ImageDir()); err == nil && images.Device != pods.Device {
		return pods.Free + images.Free
	}
	return pods.Free
}

// look looks at the disks and does what is due; it returns when to look again.
func (k *keeper) look(ctx context.Context) time.Duration {
	a := k.agent
	s, ok := a.worstDisk()
	if !ok {
		return time.Minute
	}
	short := k.policy.Pressure(s)
	if short != k.short {
		k.short = short
		a.node.Recheck() // the hub sends no more pods
		a.log.Warn("free space of the disk", "free", storage.Size(s.Free), "floor", storage.Size(k.policy.FloorBytes(s.Total)), "short", short)
	}
	now := time.Now()
	if short {
		s = k.discard(ctx, s)
	}
	if k.policy.Collect(s) > 0 && (k.policy.Pressure(s) || !now.Before(k.collect)) {
		s = k.images(ctx, s)
		k.collect = now.Add(collectPause)
	}
	if plane := a.dataPlane(); plane != nil {
		plane.pods.SetDiskPressure(k.policy.Pressure(s))
	}
	if k.policy.Pressure(s) && !now.Before(k.evict) {
		k.pods(ctx, s)
	}
	if s, ok = a.worstDisk(); !ok {
		return time.Minute
	}
	return k.policy.NextLook(s)
}

// discard removes containers that have ended.
func (k *keeper) discard(ctx context.Context, s storage.Space) storage.Space {
	plane := k.agent.dataPlane()
	if plane == nil {
		return s
	}
	plane.pods.Discard()
	select {
	case <-ctx.Done():
	case <-time.After(settleDisk):
	}
	if now, ok := k.agent.worstDisk(); ok {
		return now
	}
	return s
}

// images removes images that nothing uses until the disk is at its low mark.
func (k *keeper) images(ctx context.Context, s storage.Space) storage.Space {
	a := k.agent
	keep := podrun.SavedImages(a.podsDir())
	if plane := a.dataPlane(); plane != nil {
		keep = append(keep, plane.pods.Images()...)
	}
	for _, p := range a.desiredSet().Pods {
		if p.DeletionTimestamp == nil { // what of it still runs, the containers show
			keep = append(keep, podrun.ImagesOf(p)...)
		}
	}
	a.used.note(keep, time.Now())
	gone, err := a.rt.Collect(ctx, ctrd.Collection{Keep: keep, LastUsed: a.used.snapshot(), MinAge: a.cfg.imageAge, Enough: func() bool {
		now, ok := a.worstDisk()
		return !ok || k.policy.Enough(now)
	}})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("images not collected", "error", err)
	}
	now, ok := a.worstDisk()
	if !ok {
		return s
	}
	if len(gone) > 0 {
		a.log.Info("unused images removed", "images", strings.Join(gone, " "), "before", storage.Size(s.Free), "free", storage.Size(now.Free))
	}
	return now
}

// pods evicts one pod.
func (k *keeper) pods(ctx context.Context, s storage.Space) {
	if plane := k.agent.dataPlane(); plane != nil && plane.pods.Evict(ctx, k.policy.FloorBytes(s.Total), s.Free) {
		k.pause, k.evict = 0, time.Time{}
		return
	}
	k.pause = min(max(2*k.pause, evictFirst), evictMost)
	k.evict = time.Now().Add(k.pause)
	if ctx.Err() == nil {
		k.agent.log.Warn("the disk is short of space and no pod uses enough of it to be evicted; free some by hand", "free", storage.Size(s.Free))
	}
}
