package endpoints

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// selection remembers which pods each Service selects. It follows the changes of both, so that the change of one pod costs by
// the Services that select it, and the sync of a Service by its own pods, whatever else is in their namespace.
type selection struct {
	mu       sync.Mutex
	services map[control.Key]*selected          // those whose endpoints this controller keeps; guarded by mu
	byLabel  map[pair]map[control.Key]*selected // the same, each under one label of its selector, without empty ones; guarded by mu
}

// pair is a label of pods in a namespace.
type pair struct{ namespace, key, value string }

// selected is what is known of one Service. It is guarded by selection.mu.
type selected struct {
	selector map[string]string // never empty
	under    pair              // in selection.byLabel
	pods     map[string]struct{}
	synced   time.Time // when its slices were last brought up to date; zero: not yet
}

func newSelection() *selection {
	return &selection{services: map[control.Key]*selected{}, byLabel: map[pair]map[control.Key]*selected{}}
}

// matches reports whether a pod with these labels is selected.
func (s *selected) matches(labels map[string]string) bool {
	for k, v := range s.selector {
		if l, ok := labels[k]; !ok || l != v {
			return false
		}
	}
	return true
}

// service takes in a Service as it is now; nil: it is gone, or none whose endpoints this controller keeps. pods returns those of its
// namespace.
func (s *selection) service(key control.Key, svc *corev1.Service, pods func() []kube.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.services[key]
	if old != nil && svc != nil && maps.Equal(old.selector, svc.Spec.Selector) {
		return
	}
	if old != nil {
		delete(s.services, key)
		if delete(s.byLabel[old.under], key); len(s.byLabel[old.under]) == 0 {
			delete(s.byLabel, old.under)
		}
	}
	if svc == nil {
		return
	}
	now := &selected{selector: maps.Clone(svc.Spec.Selector), pods: map[string]struct{}{}}
	if old != nil {
		now.synced = old.synced
	}
	now.under = s.rarest(key.Namespace, now.selector)
	for _, p := range pods() {
		if now.matches(p.GetLabels()) {
			now.pods[p.GetName()] = struct{}{}
		}
	}
	s.services[key] = now
	if s.byLabel[now.under] == nil {
		s.byLabel[now.under] = map[control.Key]*selected{}
	}
	s.byLabel[now.under][key] = now
}

// rarest returns the label of a selector under which the fewest Services are: many may have one in common, such as the tool that
// has made them. s.mu is held.
func (s *selection) rarest(namespace string, selector map[string]string) pair {
	var best pair
	least := -1
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		l := pair{namespace, k, selector[k]}
		if n := len(s.byLabel[l]); least < 0 || n < least {
			best, least = l, n
		}
	}
	return best
}

// pod takes in a change of a pod, and returns the Services that select it or did.
func (s *selection) pod(namespace, name string, before, now map[string]string, gone bool) []control.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []control.Key
	add := func(key control.Key) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	s.selecting(namespace, before, func(key control.Key, to *selected) {
		add(key)
		if gone || !to.matches(now) {
			delete(to.pods, name)
		}
	})
	if gone {
		return keys
	}
	s.selecting(namespace, now, func(key control.Key, to *selected) {
		add(key)
		to.pods[name] = struct{}{}
	})
	return keys
}

// selecting calls f for each Service that selects pods with these labels. s.mu is held.
func (s *selection) selecting(namespace string, labels map[string]string, f func(control.Key, *selected)) {
	for k, v := range labels {
		for key, to := range s.byLabel[pair{namespace, k, v}] {
			if to.matches(labels) {
				f(key, to)
			}
		}
	}
}

// of returns the Services that select a pod.
func (s *selection) of(p kube.Object) (keys []control.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.selecting(p.GetNamespace(), p.GetLabels(), func(key control.Key, _ *selected) { keys = append(keys, key) })
	return keys
}

// begin records that the sync of a Service begins, and returns the names of the pods that it selects, sorted. ok is false when that is
// not to be: changes are gathered for some time more, or the Service's own change is not taken in yet and will queue it again.
func (s *selection) begin(now time.Time, svc *corev1.Service) (pods []string, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.services[control.KeyOf(svc)]
	if to == nil || !maps.Equal(to.selector, svc.Spec.Selector) {
		return nil, 0, false
	}
	if wait := gather(len(to.pods)) - now.Sub(to.synced); wait > 0 {
		return nil, wait, false
	}
	to.synced = now
	return slices.Sorted(maps.Keys(to.pods)), 0, true
}

// failed records that the last sync of a Service was none: the next one has nothing to wait for.
func (s *selection) failed(key control.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to := s.services[key]; to != nil {
		to.synced = time.Time{}
	}
}

// gather returns how long the changes of a Service with so many pods are gathered after a sync, which writes a whole slice: ten
// milliseconds for each, a second at most. A change that comes later than that after the last sync is not held up.
func gather(pods int) time.Duration { return min(time.Second, time.Duration(pods)*10*time.Millisecond) }
