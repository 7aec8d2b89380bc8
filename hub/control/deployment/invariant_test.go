package deployment

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control/replicaset"
)

// model is a Deployment whose ReplicaSets and pods are numbers, so that many thousand steps can be tried.
type model struct {
	d    *appsv1.Deployment
	sets []*version
	made int
}

type version struct {
	rs                   *appsv1.ReplicaSet
	ready, unready, dark int32
}

func (m *model) state() state {
	st := state{d: m.d, now: time.Unix(int64(1e9), 0), dark: map[types.UID]int64{}, oldPods: map[types.UID]bool{}}
	for _, s := range m.sets {
		s.rs.Status.Replicas = s.ready + s.unready + s.dark
		s.rs.Status.AvailableReplicas, s.rs.Status.ReadyReplicas = s.ready, s.ready
		st.rss = append(st.rss, s.rs)
		st.dark[s.rs.UID] = int64(s.dark)
		st.oldPods[s.rs.UID] = s.ready+s.unready > 0
	}
	return st
}

// step decides once and lets the ReplicaSets follow.
func (m *model) step() {
	p := decide(m.state())
	if p.create != nil {
		m.made++
		p.create.UID = types.UID(fmt.Sprint(m.made))
		p.create.CreationTimestamp = metav1.NewTime(time.Unix(int64(m.made), 0))
		m.sets = append(m.sets, &version{rs: p.create})
	}
	for _, c := range p.update {
		for _, s := range m.sets {
			if s.rs == c.old {
				s.rs = c.new
			}
		}
	}
	for _, s := range m.sets {
		s.follow()
	}
	m.d.Status = p.status
}

// follow is the ReplicaSet controller: new pods are not ready; of those that go, the deferred are the last, and those
// that do not serve the first.
func (s *version) follow() {
	want := *s.rs.Spec.Replicas
	s.unready += max(0, want-s.ready-s.unready-s.dark)
	keep := int32(0)
	if n, ok := number(s.rs, replicaset.DeferredAnnotation); ok {
		keep = min(int32(n), s.dark)
	}
	less := func(n *int32, floor int32) {
		surplus := s.ready + s.unready + s.dark - want
		*n -= max(0, min(surplus, *n-floor))
	}
	less(&s.dark, keep)
	less(&s.unready, 0)
	less(&s.ready, 0)
	less(&s.dark, 0)
}

func (m *model) current() *version {
	for _, s := range m.sets {
		if sameTemplate(&s.rs.Spec.Template, &m.d.Spec.Template) {
			return s
		}
	}
	return nil
}

// count returns the live pods, and those that serve; dark pods of the current version count as serving, as the rollout
// does not wait for them.
func (m *model) count() (live, serving, deferred int32) {
	r := newRollout(m.state())
	cur := m.current()
	for _, s := range m.sets {
		live += s.ready + s.unready + s.dark - int32(r.deferred[s.rs.UID])
		deferred += int32(r.deferred[s.rs.UID])
		serving += s.ready
		if s == cur {
			serving += s.dark
		}
	}
	return live, serving, deferred
}

func TestRolloutKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := web(rapid.Int32Range(0, 12).Draw(t, "replicas"), "v1")
		d.Spec.Strategy.RollingUpdate.MaxSurge = ptr.To(percentOrNumber(t, "surge"))
		d.Spec.Strategy.RollingUpdate.MaxUnavailable = ptr.To(percentOrNumber(t, "unavailable"))
		m := &model{d: d}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.disturb(t)
			surge, unavailable := bounds(m.d)
			r := newRollout(m.state())
			// A smaller Deployment gives pods up, those on dark nodes first: at once, and with what a share of the surge
			// has left the current ReplicaSet too large.
			resizing := r.resized() || r.sizeOf(r.current) > r.want
			liveBefore, servingBefore, _ := m.count()
			m.step()
			live, serving, deferred := m.count()
			goal := *m.d.Spec.Replicas - deferred
			if limit := max(liveBefore, goal+int32(surge)); live > limit {
				t.Fatalf("%d live pods, want at most %d (before: %d)", live, limit, liveBefore)
			}
			if least := min(servingBefore, goal-int32(unavailable)); serving < least && !resizing {
				t.Fatalf("%d pods serve, want at least %d (before: %d)", serving, least, servingBefore)
			}
		}
		// Left alone with pods that become ready, it arrives.
		for range 60 {
			for _, s := range m.sets {
				s.ready, s.unready = s.ready+s.unready, 0
			}
			m.step()
		}
		for _, s := range m.sets {
			s.ready, s.unready = s.ready+s.unready, 0
		}
		r := newRollout(m.state())
		if r.oldLive() != 0 || r.sizeOf(r.current) != r.goal() {
			t.Fatalf("it does not arrive: current %d of %d, %d old", r.sizeOf(r.current), r.goal(), r.oldLive())
		}
		for _, s := range m.sets { // all nodes are back
			s.ready, s.dark = s.ready+s.dark, 0
		}
		for range 60 {
			for _, s := range m.sets {
				s.ready, s.unready = s.ready+s.unready, 0
			}
			m.step()
		}
		if s := m.current(); s.ready+s.unready != *m.d.Spec.Replicas {
			t.Fatalf("it does not catch up: %d of %d", s.ready+s.unready, *m.d.Spec.Replicas)
		}
	})
}

func percentOrNumber(t *rapid.T, name string) intstr.IntOrString {
	if rapid.Bool().Draw(t, name+" in percent") {
		return intstr.FromString(fmt.Sprintf("%d%%", rapid.IntRange(0, 100).Draw(t, name)))
	}
	return intstr.FromInt(rapid.IntRange(0, 4).Draw(t, name))
}

// disturb is what the world does between two steps.
func (m *model) disturb(t *rapid.T) {
	switch rapid.SampledFrom([]string{"ready", "ready", "ready", "fail", "image", "scale", "dark", "back"}).Draw(t, "event") {
	case "image":
		m.d.Generation++
		m.d.Spec.Template.Spec.Containers[0].Image = rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "image")
	case "scale":
		m.d.Generation++
		m.d.Spec.Replicas = ptr.To(rapid.Int32Range(0, 12).Draw(t, "to"))
	case "ready":
		m.move(t, func(s *version) (from, to *int32) { return &s.unready, &s.ready })
	case "fail":
		m.move(t, func(s *version) (from, to *int32) { return &s.ready, &s.unready })
	case "dark":
		m.move(t, func(s *version) (from, to *int32) { return &s.ready, &s.dark })
	case "back":
		m.move(t, func(s *version) (from, to *int32) { return &s.dark, &s.ready })
	}
	m.sets = slices.DeleteFunc(m.sets, func(s *version) bool {
		return *s.rs.Spec.Replicas == 0 && s.ready+s.unready+s.dark == 0 && rapid.Bool().Draw(t, "history is cut")
	})
}

func (m *model) move(t *rapid.T, of func(*version) (from, to *int32)) {
	for _, s := range m.sets {
		from, to := of(s)
		n := rapid.Int32Range(0, *from).Draw(t, "how many")
		*from -= n
		*to += n
	}
}
