package podrun

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
)

const (
	reasonEvicted = "Evicted"
	// evictionGrace is the grace, in seconds, of a pod that is evicted: what it writes meanwhile others lack. As kubelet.
	evictionGrace = 1
	// discardRetry is how long after a container could not be removed it is tried again.
	discardRetry = 10 * time.Second
	// evictWait is how long an evicted pod may take to give its space back before the next is looked at.
	evictWait = 30 * time.Second
)

// endGrace is the grace, in seconds, of what still runs in a pod that has ended.
func (s *stepper) endGrace() int64 {
	if s.o.last.Reason == reasonEvicted {
		return min(graceOf(s.d.pod), evictionGrace)
	}
	return graceOf(s.d.pod)
}

// discard removes the containers of a pod that has ended: of an evicted one always, since their space was the reason; of
// another when the disk is short.
func (s *stepper) discard() {
	for i := range s.o.containers {
		c := &s.o.containers[i]
		if s.o.last.Reason == reasonEvicted || !s.o.discard.IsZero() && c.FinishedAt.Before(s.o.discard) {
			s.do(action{kind: actRemove, container: c.Name, id: c.ID, attempt: c.Attempt})
			s.at(s.now.Add(discardRetry))
		}
	}
}

// disruption is the condition that tells controllers a pod was ended for the node's sake, or nil.
func (s *stepper) disruption(st *corev1.PodStatus) *corev1.PodCondition {
	if old := kube.FindCondition(s.o.last.Conditions, corev1.DisruptionTarget); old != nil {
		return old
	}
	if st.Reason != reasonEvicted || !s.o.evict.pressure {
		return nil
	}
	return &corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet,
		Message: s.o.evict.message, ObservedGeneration: s.d.pod.Generation, LastTransitionTime: timeOf(s.now)}
}

// evict has the pod end. It reports whether that is news.
func (w *worker) evict(pod *corev1.Pod, e eviction) bool {
	w.mu.Lock()
	news := w.mem.evict.message == "" && !ended(w.mem.last.Phase)
	if news {
		w.mem.evict = e
	}
	w.mu.Unlock()
	if news {
		w.m.cfg.Log.Warn("pod evicted", "pod", pod.Name, "namespace", pod.Namespace, "why", strings.TrimSpace(e.message))
		w.m.events.pod(pod, nil, corev1.EventTypeWarning, reasonEvicted, "%s", e.message)
		w.poke()
	}
	return news
}

// evictable returns the pod, unless it has ended, is ending or is not known.
func (w *worker) evictable() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod == nil || w.pod.DeletionTimestamp != nil || ended(w.mem.last.Phase) || w.mem.evict.message != "" {
		return nil
	}
	return w.pod
}

// usage measures what the pod has on the node's disk.
func (w *worker) usage(ctx context.Context, pod *corev1.Pod) (storage.PodUsage, error) {
	u := storage.PodUsage{Containers: map[string]int64{}, Volumes: map[string]int64{}}
	list, err := w.m.cfg.Runtime.Containers(ctx, w.uid)
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
		n, err := w.m.cfg.Runtime.DiskUsage(ctx, id)
		if err := add(u.Containers, name, n, err); err != nil {
			return u, err
		}
		logs, err := storage.Walk(ctx, filepath.Join(w.dir, name))
		if err := add(u.Containers, name, logs.Bytes, err); err != nil {
			return u, err
		}
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; storage.OnDisk(v) {
			n, err := storage.Walk(ctx, w.m.cfg.Volumes.Path(w.uid, v.Name))
			if err := add(u.Volumes, v.Name, n.Bytes, err); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

func (t *Manager) limitsChanged() {
	select {
	case t.limits <- struct{}{}:
	default:
	}
}

func (t *Manager) all() []*worker {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*worker, 0, len(t.workers))
	for _, w := range t.workers {
		list = append(list, w)
	}
	return list
}

// limited are the pods that run here and limit what they have on the disk.
func (t *Manager) limited() map[*worker]*corev1.Pod {
	out := map[*worker]*corev1.Pod{}
	for _, w := range t.all() {
		if pod := w.evictable(); pod != nil && storage.Limited(pod) {
			out[w] = pod
		}
	}
	return out
}

// watchLimits evicts pods that have more on the disk than they may, until ctx ends. Without such pods it sleeps.
func (t *Manager) watchLimits(ctx context.Context) {
	begin := t.cfg.Now()
	last := map[*worker]storage.Measured{}
	var next time.Time // zero: no pod has limits
	for ctx.Err() == nil {
		pods := t.limited()
		for w := range last {
			if pods[w] == nil {
				delete(last, w)
			}
		}
		var tick <-chan time.Time
		switch now := t.cfg.Now(); {
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
		case <-t.limits:
		case <-tick:
			next = t.cfg.Now().Add(storage.MeasureTick)
			for w, pod := range pods {
				contain.Go(t.cfg.Log, "podrun/measure", w.uid, func() { last[w] = t.measure(ctx, w, pod, last[w], begin) })
			}
		}
	}
}

// measure looks at one pod with limits if it is due, and evicts it if it is over them.
func (t *Manager) measure(ctx context.Context, w *worker, pod *corev1.Pod, m storage.Measured, begin time.Time) storage.Measured {
	at := t.cfg.Now()
	free := -int64(at.Sub(begin)) // not known: every look may bring news
	if t.cfg.Free != nil {
		free = t.cfg.Free()
	}
	if m.At > 0 && !m.Due(at.Sub(begin), free) {
		return m
	}
	u, err := w.usage(ctx, pod)
	if err != nil {
		if ctx.Err() == nil {
			t.cfg.Log.Warn("disk usage of pod not measured", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
		}
		return m
	}
	if why := storage.Exceeded(pod, u); why != "" {
		w.evict(pod, eviction{message: why})
	}
	left := storage.Headroom(pod, u)
	return storage.Measured{At: at.Sub(begin), Took: t.cfg.Now().Sub(at), Free: free, Headroom: left, Interval: m.Next(left != m.Headroom)}
}

// Discard removes the containers that have ended by now, and whose pods do not run them again, with their logs.
func (t *Manager) Discard() {
	for _, w := range t.all() {
		w.mu.Lock()
		w.mem.discard = t.cfg.Now()
		w.mu.Unlock()
		w.poke()
	}
}

// Evict ends the pod whose use of the disk is the least justified, and waits until it has given its space back. floor and
// free are the disk's, in bytes. false: there is none whose end would free anything.
func (t *Manager) Evict(ctx context.Context, floor, free int64) bool {
	var list []storage.Candidate
	workers := map[*corev1.Pod]*worker{}
	for _, w := range t.all() {
		pod := w.evictable()
		if pod == nil {
			continue
		}
		u, err := w.usage(ctx, pod)
		if err != nil {
			t.cfg.Log.Warn("disk usage of pod not measured", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
			continue
		}
		workers[pod] = w
		list = append(list, storage.Candidate{Pod: pod, Usage: u})
	}
	ranked := storage.Rank(list)
	if len(ranked) == 0 {
		return false
	}
	w := workers[ranked[0].Pod]
	w.evict(ranked[0].Pod, eviction{message: storage.LowMessage(ranked[0], floor, free), pressure: true})
	for end := time.Now().Add(evictWait); ctx.Err() == nil && time.Now().Before(end) && !w.givenBack(ctx); {
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return true
}

// givenBack reports whether nothing of the pod is on the disk any more but its status.
func (w *worker) givenBack(ctx context.Context) bool {
	w.mu.Lock()
	released := w.mem.released
	w.mu.Unlock()
	if !released {
		return false
	}
	list, err := w.m.cfg.Runtime.Containers(ctx, w.uid)
	return err == nil && len(list) == 0
}

// Images are those that the pods on this node name, also of pods that the set does not name at the moment.
func (t *Manager) Images() []string {
	var out []string
	for _, w := range t.all() {
		w.mu.Lock()
		if w.pod != nil && !w.mem.removed {
			out = append(out, ImagesOf(w.pod)...)
		}
		w.mu.Unlock()
	}
	return out
}

// ImagesOf are the images that a pod names.
func ImagesOf(pod *corev1.Pod) []string {
	var out []string
	for i := range pod.Spec.InitContainers {
		out = append(out, pod.Spec.InitContainers[i].Image)
	}
	for i := range pod.Spec.Containers {
		out = append(out, pod.Spec.Containers[i].Image)
	}
	return out
}

// SavedImages are the images of the pods that an agent keeps in dir, whether it runs or not.
func SavedImages(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		var p corev1.Pod
		if b, err := safefile.ReadIn(dir, filepath.Join(e.Name(), podFile), maxOwnFile); err == nil && json.Unmarshal(b, &p) == nil {
			out = append(out, ImagesOf(&p)...)
		}
	}
	return out
}

// SetDiskPressure says whether the disk is short, with nothing left to collect: then new pods are refused, but critical ones.
func (t *Manager) SetDiskPressure(on bool) { t.short.Store(on) }

// pressure refuses pods while the node's disk is short, as kubelet does.
func (s site) pressure(pod *corev1.Pod) rejection {
	if !s.short || storage.Critical(pod) {
		return rejection{}
	}
	return rejection{reasonEvicted, "The node had condition: [DiskPressure]. "}
}
