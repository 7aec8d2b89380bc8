package storage

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func quantity(s string) *resource.Quantity {
	q := resource.MustParse(s)
	return &q
}

func container(name, limit string) corev1.Container {
	c := corev1.Container{Name: name}
	if limit != "" {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: *quantity(limit)}
	}
	return c
}

func emptyDir(name, limit string, medium corev1.StorageMedium) corev1.Volume {
	e := &corev1.EmptyDirVolumeSource{Medium: medium}
	if limit != "" {
		e.SizeLimit = quantity(limit)
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: e}}
}

// TestExceeded covers which limit is exceeded, in upstream's words and order.
func TestExceeded(t *testing.T) {
	const mi = 1 << 20
	pod := func(volumes []corev1.Volume, containers ...corev1.Container) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Volumes: volumes, Containers: containers}}
	}
	use := func(volumes, containers map[string]int64) PodUsage {
		return PodUsage{Volumes: volumes, Containers: containers}
	}
	m := func(n int64) map[string]int64 { return map[string]int64{"a": n} }
	withInit := pod(nil, container("a", "5Mi"))
	withInit.Spec.InitContainers = []corev1.Container{container("i", "20Mi")}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		u    PodUsage
		want string
	}{
		{"no limits", pod([]corev1.Volume{emptyDir("a", "", "")}, container("a", "")), use(m(1<<40), m(1<<40)), ""},
		{"at the limit", pod([]corev1.Volume{emptyDir("a", "5Mi", "")}), use(m(5*mi), nil), ""},
		{"volume", pod([]corev1.Volume{emptyDir("a", "5Mi", "")}), use(m(5*mi+1), nil), `Usage of EmptyDir volume "a" exceeds the limit "5Mi". `},
		{"volume first", pod([]corev1.Volume{emptyDir("a", "5Mi", "")}, container("a", "1Mi")), use(m(9*mi), m(9*mi)), `Usage of EmptyDir volume "a" exceeds the limit "5Mi". `},
		{"memory is tmpfs's business", pod([]corev1.Volume{emptyDir("a", "5Mi", corev1.StorageMediumMemory)}), use(m(9*mi), nil), ""},
		{"container", pod(nil, container("a", "5Mi")), use(nil, m(6*mi)), "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "},
		{"one of two", pod(nil, container("a", "5Mi"), container("b", "5Mi")), use(nil, m(6*mi)), `Container a exceeded its local ephemeral storage limit "5Mi". `},
		{"volume counts for the pod", pod([]corev1.Volume{emptyDir("a", "", "")}, container("a", "5Mi")), use(m(3*mi), m(3*mi)), "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "},
		{"an init container may need more", withInit, use(nil, map[string]int64{"i": 10 * mi}), ""},
		{"not to be measured", pod([]corev1.Volume{emptyDir("a", "5Mi", "")}), PodUsage{Unmeasurable: "cannot be measured: x"}, "Pod ephemeral local storage usage cannot be measured: x. "},
		{"not to be measured, no limit", pod([]corev1.Volume{emptyDir("a", "", "")}), PodUsage{Unmeasurable: "cannot be measured: x"}, ""},
	} {
		if got := Exceeded(c.pod, c.u); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if over := Headroom(c.pod, c.u) < 0; over != (c.want != "") && c.u.Unmeasurable == "" {
			t.Errorf("%s: headroom %d", c.name, Headroom(c.pod, c.u))
		}
	}
}

// TestDue checks that a quiet disk is not measured, a writer is at once, an expensive pod rarely.
func TestDue(t *testing.T) {
	m := Measured{At: time.Minute, Took: 10 * time.Millisecond, Free: 1000, Headroom: 100, Interval: time.Minute}
	for _, c := range []struct {
		after time.Duration
		free  int64
		took  time.Duration
		want  bool
	}{
		{10 * time.Second, 1000, 0, false},
		{2 * time.Minute, 1000, 0, false},
		{maxInterval, 1000, 0, true},
		{10 * time.Second, 990, 0, false},
		{10 * time.Second, 950, 0, true},
		{10 * time.Second, 900, time.Second, false}, // it took a second: not for 100
		{100 * time.Second, 900, time.Second, true},
		{time.Minute, 999, 0, true},
		{time.Minute, 1001, 0, true},
	} {
		m.Took = c.took
		if got := m.Due(time.Minute+c.after, c.free); got != c.want {
			t.Errorf("%v later, %d free, took %v: %v", c.after, c.free, c.took, got)
		}
	}
	if a, b := m.Next(true), m.Next(false); a != MeasureTick || b != 2*time.Minute {
		t.Errorf("next after %v, %v", a, b)
	}
}

// TestCollectable checks that what is pinned, used or new stays; the longest unused goes first.
func TestCollectable(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	list := []Image{
		{Name: "pinned", Pinned: true, CreatedAt: ago(time.Hour)}, {Name: "used", InUse: true, CreatedAt: ago(time.Hour)},
		{Name: "new", CreatedAt: ago(time.Minute)}, {Name: "just", CreatedAt: ago(time.Hour), LastUsed: ago(time.Minute)},
		{Name: "b", CreatedAt: ago(3 * time.Hour), LastUsed: ago(time.Hour)}, {Name: "a", CreatedAt: ago(2 * time.Hour)},
		{Name: "clock was set back", CreatedAt: now.Add(time.Hour)},
	}
	var names []string
	for _, i := range Collectable(list, now, MinAge) {
		names = append(names, i.Name)
	}
	if want := []string{"a", "b", "clock was set back"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

func TestRank(t *testing.T) {
	c := func(name string, used, asked int64, priority int32) Candidate {
		p := &corev1.Pod{Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c"}}}}
		p.Name = name
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: *resource.NewQuantity(asked<<20, resource.BinarySI)}
		return Candidate{Pod: p, Usage: PodUsage{Containers: map[string]int64{"c": used << 20}}}
	}
	var got []string
	for _, c := range Rank([]Candidate{c("asked", 500, 600, 0), c("vip", 900, 0, 10), c("big", 90, 0, 0), c("bigger", 200, 100, 0), c("critical", 900, 0, systemCritical), c("empty", 0, 0, 0), c("low", 5, 0, -1)}) {
		got = append(got, c.Pod.Name)
	}
	if want := "[low bigger big vip asked]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// TestNextLook checks that a disk near its floor is looked at often.
func TestNextLook(t *testing.T) {
	p := Default()
	for free, want := range map[int64]time.Duration{50 << 30: longestLook, 8<<30 + 640<<20: 10 * time.Second, 8 << 30: shortestLook, 0: shortestLook} {
		if got := p.NextLook(Space{Total: 100 << 30, Free: free}); got != want {
			t.Errorf("%d free: %v, want %v", free, got, want)
		}
	}
}
