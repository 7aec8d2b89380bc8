package podrun

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/contain"
)

// evictWait is how long an evicted pod may take to give its space back before the next is looked at.
const evictWait = 30 * time.Second

// evict has the pod end, unless it has ended or that has been asked for before.
func (h *handle) evict(pod *corev1.Pod, e lifecycle.Eviction) {
	if lifecycle.Ended(h.shown.Load().last.Phase) || !h.condemned.CompareAndSwap(false, true) {
		return
	}
	h.m.cfg.Log.Warn("pod evicted", "pod", pod.Name, "namespace", pod.Namespace, "why", strings.TrimSpace(e.Message))
	h.m.events.Record(pod, nil, corev1.EventTypeWarning, lifecycle.ReasonEvicted, "%s", e.Message)
	h.inbox.put(evicted{e})
}

// evicted is an eviction that has been decided.
type evicted struct{ lifecycle.Eviction }

func (r evicted) apply(_ context.Context, w *worker) { w.mem.Evict = r.Eviction }

// discarded is the order to remove what had ended at that time, for its space.
type discarded struct{ before time.Time }

func (r discarded) apply(_ context.Context, w *worker) { w.mem.Discard = r.before }

// evictable returns the pod, unless it has ended, is ending or is not known.
func (h *handle) evictable() *corev1.Pod {
	s := h.shown.Load()
	if s.pod == nil || s.pod.DeletionTimestamp != nil || lifecycle.Ended(s.last.Phase) || h.condemned.Load() {
		return nil
	}
	return s.pod
}

// usage measures what the pod has on the node's disk.
func (h *handle) usage(ctx context.Context, pod *corev1.Pod) (storage.PodUsage, error) {
	u := storage.PodUsage{Containers: map[string]int64{}, Volumes: map[string]int64{}}
	list, err := h.m.cfg.Runtime.Containers(ctx, h.uid)
	if err != nil {
		return u, err
	}
	newest := map[string]string{}
	for _, c := range list { // oldest attempt first
		newest[c.Name] = c.ID
	}
	add := func(sum map[string]int64, name string, n int64, err error) error {
		sum[name] += n
		if errors.Is(err, storage.ErrUnmeasurable) {
			_, what, _ := strings.Cut(err.Error(), storage.ErrUnmeasurable.Error())
			u.Unmeasurable = storage.ErrUnmeasurable.Error() + what
			return nil
		}
		if errors.Is(err, cruntime.ErrNotFound) {
			return nil
		}
		return err
	}
	for name, id := range newest {
		n, err := h.m.cfg.Runtime.DiskUsage(ctx, id)
		if err := add(u.Containers, name, n, err); err != nil {
			return u, err
		}
		logs, err := storage.Walk(ctx, filepath.Join(h.dir, name))
		if err := add(u.Containers, name, logs.Bytes, err); err != nil {
			return u, err
		}
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; storage.OnDisk(v) {
			n, err := storage.Walk(ctx, h.m.cfg.Volumes.Path(h.uid, v.Name))
			if err := add(u.Volumes, v.Name, n.Bytes, err); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

// limitsChanged has watchLimits look which pods have limits.
func (m *Manager) limitsChanged() {
	select {
	case m.limits <- struct{}{}:
	default:
	}
}

// limited are the pods that run here and limit what they have on the disk.
func (m *Manager) limited() map[*handle]*corev1.Pod {
	out := map[*handle]*corev1.Pod{}
	for _, h := range m.all() {
		if pod := h.evictable(); pod != nil && storage.Limited(pod) {
			out[h] = pod
		}
	}
	return out
}

// watchLimits evicts pods that have more on the disk than they may, until ctx ends. Without such pods it sleeps.
func (m *Manager) watchLimits(ctx context.Context) {
	begin := m.cfg.Now()
	last := map[*handle]storage.Measured{}
	var next time.Time // zero: no pod has limits
	for ctx.Err() == nil {
		pods := m.limited()
		for h := range last {
			if pods[h] == nil {
				delete(last, h)
			}
		}
		var tick <-chan time.Time
		switch now := m.cfg.Now(); {
		case len(pods) == 0:
			next = time.Time{}
		case next.IsZero(): // a pod that has only just come has written nothing yet
			next = now.Add(storage.MeasureTick)
			fallthrough
		default:
			tick = time.After(min(next.Sub(now), storage.MeasureTick))
		}
		select {
		case <-ctx.Done():
			return
		case <-m.limits:
		case <-tick:
			next = m.cfg.Now().Add(storage.MeasureTick)
			for h, pod := range pods {
				contain.Go(m.cfg.Log, "podrun/measure", h.uid, func() { last[h] = m.measure(ctx, h, pod, last[h], begin) })
			}
		}
	}
}

// measure looks at one pod with limits if it is due, and evicts it if it is over them.
func (m *Manager) measure(ctx context.Context, h *handle, pod *corev1.Pod, was storage.Measured, begin time.Time) storage.Measured {
	at := m.cfg.Now()
	free := -int64(at.Sub(begin)) // not known: every look may bring news
	if m.cfg.Free != nil {
		free = m.cfg.Free()
	}
	if was.At > 0 && !was.Due(at.Sub(begin), free) {
		return was
	}
	u, err := h.usage(ctx, pod)
	if err != nil {
		if ctx.Err() == nil {
			m.cfg.Log.Warn("disk usage of pod not measured", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
		}
		return was
	}
	if why := storage.Exceeded(pod, u); why != "" {
		h.evict(pod, lifecycle.Eviction{Message: why})
	}
	left := storage.Headroom(pod, u)
	return storage.Measured{At: at.Sub(begin), Took: m.cfg.Now().Sub(at), Free: free, Headroom: left, Interval: was.Next(left != was.Headroom)}
}

// Discard removes the containers that have ended by now, and whose pods do not run them again, with their logs.
func (m *Manager) Discard() {
	for _, h := range m.all() {
		h.inbox.put(discarded{m.cfg.Now()})
	}
}

// Evict ends the pod whose use of the disk is the least justified, and waits until it has given its space back. floor and
// free are the disk's, in bytes. It reports whether there was one whose end would free anything.
func (m *Manager) Evict(ctx context.Context, floor, free int64) bool {
	var list []storage.Candidate
	handles := map[*corev1.Pod]*handle{}
	for _, h := range m.all() {
		pod := h.evictable()
		if pod == nil {
			continue
		}
		u, err := h.usage(ctx, pod)
		if err != nil {
			m.cfg.Log.Warn("disk usage of pod not measured", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
			continue
		}
		handles[pod] = h
		list = append(list, storage.Candidate{Pod: pod, Usage: u})
	}
	ranked := storage.Rank(list)
	if len(ranked) == 0 {
		return false
	}
	h := handles[ranked[0].Pod]
	h.evict(ranked[0].Pod, lifecycle.Eviction{Message: storage.LowMessage(ranked[0], floor, free), Pressure: true})
	ctx, cancel := context.WithTimeout(ctx, evictWait)
	defer cancel()
	for s := h.shown.Load(); !h.givenBack(ctx, s) && ctx.Err() == nil; s = h.shown.Load() {
		select {
		case <-ctx.Done():
		case <-s.old:
		}
	}
	return true
}

// givenBack reports whether nothing of a pod that shows s is on the disk any more but its status.
func (h *handle) givenBack(ctx context.Context, s *snapshot) bool {
	if !s.released {
		return false
	}
	list, err := h.m.cfg.Runtime.Containers(ctx, h.uid)
	return err == nil && len(list) == 0
}

// SetDiskPressure sets whether the disk is short, with nothing left to collect: then new pods are refused, but critical ones.
func (m *Manager) SetDiskPressure(on bool) { m.short.Store(on) }

// pressure refuses pods while the node's disk is short, as kubelet does.
func (s site) pressure(pod *corev1.Pod) lifecycle.Rejection {
	if !s.short || storage.Critical(pod) {
		return lifecycle.Rejection{}
	}
	return refuse(lifecycle.ReasonEvicted, "The node had condition: [DiskPressure]. ")
}
