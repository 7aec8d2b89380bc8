package pulls

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/progress"
	"petrel.dev/petrel/internal/kube"
)

// fleet is nodes that answer, and what was asked and shown.
type fleet struct {
	t     *testing.T
	began time.Time
	pods  chan []*corev1.Pod

	mu    sync.Mutex
	pulls map[string][]kube.ImagePull // of a node; none: it is dark
	asked []string                    // second and node
	shown []progress.Part
}

func newFleet(t *testing.T) *fleet {
	return &fleet{t: t, began: time.Now(), pods: make(chan []*corev1.Pod, 1), pulls: map[string][]kube.ImagePull{}}
}

// begin follows the fleet in a goroutine, until end is called.
func (f *fleet) begin() (end func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() { follow(ctx, f.ask, f.pods, f.show); close(done) }()
	return func() { cancel(); <-done }
}

func (f *fleet) ask(_ context.Context, node string) ([]kube.ImagePull, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%d %s", int(time.Since(f.began).Seconds()), node))
	list, ok := f.pulls[node]
	switch {
	case node == "forbidden":
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden}}
	case !ok:
		return nil, errors.New("dark")
	}
	return list, nil
}

func (f *fleet) show(parts []progress.Part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown = parts
}

// expect lets time pass, and checks what was asked within it, and what is shown then.
func (f *fleet) expect(seconds int, asked, shown string) {
	f.t.Helper()
	time.Sleep(time.Duration(seconds)*time.Second - time.Millisecond)
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.asked) // those of a round are in no order
	if got := strings.Join(f.asked, ", "); got != asked {
		f.t.Errorf("asked %q, want %q", got, asked)
	}
	f.asked = nil
	var lines []string
	for _, p := range f.shown {
		lines = append(lines, fmt.Sprintf("%s %d/%d %s", p.Title, p.Done, p.Total, p.Note))
	}
	if got := strings.Join(lines, "; "); got != shown {
		f.t.Errorf("shown %q, want %q", got, shown)
	}
}

func pod(name, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Status: corev1.PodStatus{Phase: phase},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Image: "app:1"}}}}
}

func coming(done, total int64, pods ...string) kube.ImagePull {
	return kube.ImagePull{Image: "app:1", Pods: pods, Bytes: done, TotalBytes: total}
}

// TestFollow goes through a pull: asked once a second while it lasts, never while no pod waits; a node that is dark, or that pulls for others
// only, is left alone for longer.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.begin()()

		f.pulls["pi-1"] = []kube.ImagePull{coming(0, 0, "ns/a")}
		f.pulls["pi-2"] = []kube.ImagePull{coming(5, 10, "ns/other"), {Image: "\x1b[2J", Pods: []string{"ns/b"}, TotalBytes: 1}}
		f.pods <- []*corev1.Pod{pod("placed", "", corev1.PodPending), pod("up", "pi-4", corev1.PodRunning)}
		f.expect(60, "", "")
		f.pods <- []*corev1.Pod{pod("a", "pi-1", corev1.PodPending), pod("b", "pi-2", corev1.PodPending), pod("c", "dark", corev1.PodPending)}
		f.expect(2, "59 dark, 59 pi-1, 59 pi-2, 60 pi-1", "pi-1 app:1 0/0 asking the registry")
		f.pulls["pi-1"] = []kube.ImagePull{coming(3, 10, "ns/a")}
		f.expect(2, "61 pi-1, 62 pi-1", "pi-1 app:1 3/10 ")
		f.pulls["pi-1"] = []kube.ImagePull{coming(10, 10, "ns/a")}
		f.expect(2, "63 pi-1, 64 pi-1, 64 pi-2", "pi-1 app:1 10/10 unpacking")
		f.pods <- []*corev1.Pod{pod("a", "pi-1", corev1.PodRunning), pod("b", "pi-2", corev1.PodRunning), pod("c", "dark", corev1.PodPending)}
		f.expect(20, "", "")
		f.expect(10, "89 dark", "")
	})
}

// TestFleet has more nodes than are shown: those whose pods wait for the longest are.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.begin()()
		var pods []*corev1.Pod
		for i := range 9 {
			name := fmt.Sprintf("pi-%d", i)
			p := pod("on-"+name, name, corev1.PodPending)
			p.CreationTimestamp = metav1.NewTime(f.began.Add(-time.Duration(i) * time.Minute))
			pods = append(pods, p)
			f.pulls[name] = []kube.ImagePull{coming(1, 2, "ns/on-"+name)}
		}
		f.pods <- pods
		for second := range 3 { // changes of pods do not make more questions
			want := fmt.Sprintf("%[1]d pi-5, %[1]d pi-6, %[1]d pi-7, %[1]d pi-8", second)
			f.pods <- pods
			f.expect(1, want, "pi-8 app:1 1/2 ; pi-7 app:1 1/2 ; pi-6 app:1 1/2 ; pi-5 app:1 1/2 ")
			time.Sleep(time.Millisecond)
		}
	})
}

// TestDarkNodesDoNotDelayOthers has more nodes than are asked at a time. Those that do not answer are asked first, the next ones a second later.
func TestDarkNodesDoNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.begin()()
		f.pulls["up"] = []kube.ImagePull{coming(1, 2, "ns/on-up")}
		var pods []*corev1.Pod
		for _, name := range []string{"dark-1", "dark-2", "dark-3", "dark-4", "up"} {
			pods = append(pods, pod("on-"+name, name, corev1.PodPending))
		}
		f.pods <- pods
		f.expect(2, "0 dark-1, 0 dark-2, 0 dark-3, 0 dark-4, 1 up", "up app:1 1/2 ")
	})
}

// TestHostileNumbers checks that a bar can be drawn of whatever a node claims.
func TestHostileNumbers(t *testing.T) {
	f := follower{nodes: map[string]*node{}}
	f.set([]*corev1.Pod{pod("a", "pi-1", corev1.PodPending)})
	n := f.nodes["pi-1"]
	const huge = 1<<63 - 1
	n.pulls = n.wanted([]kube.ImagePull{coming(-1, 10, "ns/a"), coming(huge, huge, "ns/a"), coming(11, 10, "ns/a"), coming(-huge, -huge, "ns/a")})
	var got []int64
	for _, p := range f.parts() {
		got = append(got, p.Done, p.Total)
	}
	if want := []int64{0, 10, largest, largest, 10, 10, 0, -huge}; !slices.Equal(got, want) {
		t.Errorf("%d, want %d", got, want)
	}
}

// TestForbidden ends it for a user who may not ask nodes.
func TestForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.pods <- []*corev1.Pod{pod("a", "forbidden", corev1.PodPending)}
		follow(t.Context(), f.ask, f.pods, f.show) // it returns
		if len(f.asked) != 1 || f.shown != nil {
			t.Errorf("asked %q, shown %v", f.asked, f.shown)
		}
	})
}
