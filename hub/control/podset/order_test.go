package podset

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestVictimOrder(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	pod := func(name string, change ...func(*Candidate)) Candidate {
		c := Candidate{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: ago(time.Hour)},
			Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning,
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(time.Hour)}}}}}
		for _, f := range change {
			f(&c)
		}
		return c
	}
	// From the first to go to the last.
	want := []Candidate{
		pod("unassigned", func(c *Candidate) { c.Pod.Spec.NodeName = "" }),
		pod("pending", func(c *Candidate) { c.Pod.Status.Phase = corev1.PodPending }),
		pod("unknown", func(c *Candidate) { c.Pod.Status.Phase = corev1.PodUnknown }),
		pod("not-ready", func(c *Candidate) { c.Pod.Status.Conditions = nil }),
		pod("cheap", func(c *Candidate) { c.Pod.Annotations = map[string]string{corev1.PodDeletionCost: "-10"} }),
		pod("crowded", func(c *Candidate) { c.Colocated = 3 }),
		pod("just-ready", func(c *Candidate) { c.Pod.Status.Conditions[0].LastTransitionTime = ago(time.Minute) }),
		pod("restarted", func(c *Candidate) {
			c.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 4}}
		}),
		pod("younger", func(c *Candidate) { c.Pod.CreationTimestamp = ago(10 * time.Minute) }),
		pod("plain"),
		pod("dear", func(c *Candidate) { c.Pod.Annotations = map[string]string{corev1.PodDeletionCost: "10"} }),
		pod("deferred", func(c *Candidate) { c.Keep = true; c.Pod.Spec.NodeName = "" }),
	}
	var names []string
	for _, c := range want {
		names = append(names, c.Pod.Name)
	}
	shuffled := slices.Clone(want)
	slices.Reverse(shuffled)
	var got []string
	for _, p := range Victims(shuffled, len(shuffled), now) {
		got = append(got, p.Name)
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("order of deletion\n got %v\nwant %v", got, names)
	}
}

// TestCandidates checks that what shares a node counts over the whole application, and only what is active; keep is asked in
// order.
func TestCandidates(t *testing.T) {
	on := func(name, node string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
	}
	a, b, c := on("a", "n1", corev1.PodRunning), on("b", "n1", corev1.PodRunning), on("c", "n2", corev1.PodRunning)
	of := on("of-another-version", "n1", corev1.PodRunning)
	ended := on("ended", "n2", corev1.PodFailed)
	left := 1
	got := Candidates([]*corev1.Pod{a, b, c}, []*corev1.Pod{a, b, c, of, ended}, func(p *corev1.Pod) bool {
		left--
		return left >= 0
	})
	want := []Candidate{{Pod: a, Keep: true, Colocated: 3}, {Pod: b, Colocated: 3}, {Pod: c, Colocated: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, c := range Candidates([]*corev1.Pod{a}, nil, nil) {
		if c.Keep {
			t.Error("kept without being asked for")
		}
	}
}
