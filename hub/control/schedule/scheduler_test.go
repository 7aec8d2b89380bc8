package schedule_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/internal/kube"
)

// world is a fleet with a running scheduler, inside a synctest bubble.
type world struct {
	*testing.T
	*controltest.Client
	events  controltest.Events
	images  schedule.Images
	links   schedule.Links
	metrics *schedule.Metrics
}

func play(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, Client: controltest.New(t), metrics: schedule.NewMetrics()}
		f(w)
	})
}

// start runs a scheduler until stop is called or the test ends.
func (w *world) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s := schedule.New(schedule.Config{Client: w.Client, Events: &w.events, Images: w.images, Links: w.links, Metrics: w.metrics})
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("run: %v", err)
		}
	})
	w.Cleanup(stop)
	synctest.Wait()
	return stop
}

func node(name, cpu string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelArchStable: "arm64"}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110")}}}
}

func pod(name, cpu string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "app", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending}}
}

// at returns the node of a pod, or its condition.
func (w *world) at(name string) string {
	synctest.Wait()
	p, ok := control.Get[*corev1.Pod](w.Client, kube.Pod, "default", name)
	if !ok {
		return "gone"
	}
	c := control.PodCondition(p, corev1.PodScheduled)
	switch {
	case p.Spec.NodeName != "":
		return p.Spec.NodeName
	case c == nil:
		return "untouched"
	}
	return fmt.Sprintf("%s: %s", c.Reason, c.Message)
}

func (w *world) want(name, where string) {
	w.Helper()
	if got := w.at(name); got != where {
		w.Errorf("pod %s: %s, want %s", name, got, where)
	}
}

func (w *world) wantEvents(want ...string) {
	w.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, w.events.Take()); diff != "" {
		w.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestBindsWhatIsThereAndWhatComes(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "2"))
		w.Put(pod("first", "1"))
		w.start()
		w.want("first", "a")
		w.Put(pod("second", "1"))
		w.want("second", "a")
		w.wantEvents("Normal Scheduled Pod/first: Successfully assigned default/first to a",
			"Normal Scheduled Pod/second: Successfully assigned default/second to a")
		p, _ := control.Get[*corev1.Pod](w.Client, kube.Pod, "default", "second")
		if c := control.PodCondition(p, corev1.PodScheduled); c == nil || c.Status != corev1.ConditionTrue {
			t.Errorf("condition %+v", c)
		}
	})
}

func TestLeavesAloneWhatIsNotItsOwn(t *testing.T) {
	play(t, func(w *world) {
		w.start()
		w.Put(node("a", "2"))
		foreign, gated, leaving := pod("foreign", "1"), pod("gated", "1"), pod("leaving", "1")
		foreign.Spec.SchedulerName = "other"
		gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "quota"}}
		leaving.DeletionTimestamp, leaving.Finalizers = &metav1.Time{Time: time.Now()}, []string{"x/y"}
		for _, p := range []*corev1.Pod{foreign, gated, leaving} {
			w.Put(p)
		}
		for _, name := range []string{"foreign", "gated", "leaving"} {
			w.want(name, "untouched")
		}
		open := pod("gated", "1")
		open.Generation = 2
		w.Put(open)
		w.want("gated", "a")
	})
}

// A pod that fits nowhere says so once, is quiet, and goes as soon as it can.
func TestParksUntilTheFleetChanges(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "2"))
		w.start()
		w.Put(pod("big", "3"))
		const lacks = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
		w.want("big", lacks)
		w.wantEvents("Warning FailedScheduling Pod/big: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")

		w.Writes() // so far
		time.Sleep(24 * time.Hour)
		w.want("big", lacks)
		n, _ := control.Get[*corev1.Node](w.Client, kube.Node, "", "a")
		n = n.DeepCopy()
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		w.Put(n)
		synctest.Wait()
		if wrote := updates(w.Writes(), "Pod"); len(wrote) > 0 {
			t.Errorf("wrote %v while nothing changed", wrote)
		}
		w.wantEvents()

		w.Put(node("b", "4"))
		w.want("big", "b")
	})
}

// Room that a finished or deleted pod leaves goes to the one that waits.
func TestRoomIsUsedAgain(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.start()
		w.Put(pod("one", "1"))
		w.want("one", "a")
		w.Put(pod("two", "1"))
		w.Put(pod("three", "1"))
		w.want("two", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
		one, _ := control.Get[*corev1.Pod](w.Client, kube.Pod, "default", "one")
		one = one.DeepCopy()
		one.Status.Phase = corev1.PodSucceeded
		time.Sleep(time.Minute)
		w.Put(one)
		w.want("two", "a")
		w.want("three", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
		time.Sleep(time.Minute)
		w.Remove(kube.Pod, "default", "two")
		w.want("three", "a")
	})
}

func TestPriorityGoesFirst(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		low, high := pod("low", "1"), pod("high", "1")
		important := int32(1000)
		high.Spec.Priority = &important
		w.Put(low)
		w.Put(high)
		w.start()
		w.want("high", "a")
		w.want("low", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
	})
}

// The condition follows the reason, but not faster than people read.
func TestChangingReasonIsWrittenNowAndThen(t *testing.T) {
	play(t, func(w *world) {
		w.start()
		w.Put(pod("big", "64"))
		w.want("big", "Unschedulable: no nodes available to schedule pods")
		for i := range 100 {
			w.Put(node(fmt.Sprintf("n%02d", i), "1"))
			time.Sleep(time.Second)
		}
		writes := 0
		for _, line := range w.Writes() {
			if strings.HasPrefix(line, "update Pod default/big") {
				writes++
			}
		}
		if writes < 2 || writes > 6 {
			t.Errorf("the condition was written %d times in 100 s", writes)
		}
		time.Sleep(time.Minute)
		w.want("big", "Unschedulable: 0/100 nodes are available: 100 Insufficient cpu. preemption: 0/100 nodes are available: 100 Preemption is not helpful for scheduling.")
	})
}

// One pod of a batch has changed meanwhile: the others are bound all the same, and it is not lost.
// While a changed reason waits to be written, a change of the fleet still brings the pod its node: cordon, taint, uncordon.
func TestWaitingToWriteDoesNotMissAChange(t *testing.T) {
	play(t, func(w *world) {
		n := node("a", "2")
		n.Spec.Unschedulable = true
		w.Put(n)
		w.start()
		w.Put(pod("p", "1"))
		w.want("p", "Unschedulable: 0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
		time.Sleep(2 * time.Second)
		tainted := n.DeepCopy()
		tainted.Spec.Taints = []corev1.Taint{{Key: "busy", Effect: corev1.TaintEffectNoSchedule}}
		tainted.Spec.Unschedulable = false
		w.Put(tainted) // another reason, too soon to be written
		time.Sleep(4 * time.Second)
		free := tainted.DeepCopy()
		free.Spec.Taints = nil
		w.Put(free)
		w.want("p", "a")
	})
}

func TestOneConflictDoesNotHoldUpTheRest(t *testing.T) {
	play(t, func(w *world) {
		for i := range 5 {
			w.Put(pod(fmt.Sprintf("p%d", i), "1"))
		}
		fail := true
		w.Refuse = func(verb string, obj kube.Object, sub string) error {
			if fail && obj.GetName() == "p2" && sub == "binding" {
				return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "p2", fmt.Errorf("it has changed"))
			}
			return nil
		}
		w.Put(node("a", "4"))
		w.start()
		time.Sleep(maxWait) // p4 gets the room that p2 does not take
		bound := 0
		for i := range 5 {
			if w.at(fmt.Sprintf("p%d", i)) == "a" {
				bound++
			}
		}
		if bound != 4 {
			t.Errorf("%d of 5 bound", bound)
		}
		w.want("p2", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
		fail = false
		w.Put(node("b", "1"))
		time.Sleep(maxWait)
		w.want("p2", "b")
	})
}

// maxWait is longer than any back-off.
const maxWait = time.Minute

// While the cache is behind, what was promised counts: two pods must not get the same room, and none is bound twice.
func TestPromisesCountWhileTheCacheIsBehind(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(node("b", "1"))
		w.start()
		w.Put(pod("one", "1"))
		synctest.Wait()
		w.Lag(true)
		w.Put(pod("two", "1"))
		w.Put(pod("three", "1"))
		w.Step(2)
		synctest.Wait()
		w.Lag(false)
		time.Sleep(maxWait)
		at := map[string]int{}
		for _, name := range []string{"one", "two", "three"} {
			at[w.at(name)]++
		}
		want := map[string]int{"a": 1, "b": 1, "Unschedulable: 0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.": 1}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestArchitecturesOfImages(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "4"))
		w.start()
		p := pod("web", "1")
		p.Annotations = map[string]string{kube.ArchitecturesAnnotation: "amd64, riscv64"}
		w.Put(p)
		w.want("web", "Unschedulable: 0/1 nodes are available: 1 node(s) had architecture arm64, for which there is no image app (only for amd64 riscv64). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
		// It is that pod's own word: others with the same image go their way.
		w.Put(pod("other", "1"))
		w.want("other", "a")
		b := node("b", "4")
		b.Labels[corev1.LabelArchStable] = "riscv64"
		time.Sleep(time.Second)
		w.Put(b)
		w.want("web", "b")
	})
}

// imageReports stands for the image reports of nodes.
type imageReports struct{ saw func(string, []string) }

func (*imageReports) SubscribeNodes(context.Context, func(string, string, bool)) {}

func (i *imageReports) Subscribe(_ context.Context, saw func(string, []string)) {
	i.saw = saw
	saw("app", []string{"amd64"})
}

// What becomes known of an image counts at once, also for the pods that wait.
func TestLearnsArchitectures(t *testing.T) {
	play(t, func(w *world) {
		known := &imageReports{}
		w.images = known
		w.Put(node("a", "4"))
		w.start()
		w.Put(pod("one", "1"))
		refused := "Unschedulable: 0/1 nodes are available: 1 node(s) had architecture arm64, for which there is no image app (only for amd64). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
		w.want("one", refused)
		p := pod("override", "1")
		p.Annotations = map[string]string{kube.ArchitecturesAnnotation: "arm64"}
		w.Put(p)
		w.want("override", "a")
		time.Sleep(time.Second)
		known.saw("elsewhere", []string{"arm64"})
		w.want("one", refused)
		time.Sleep(time.Second)
		known.saw("app", []string{"amd64", "arm64"})
		w.want("one", "a")
		known.saw("app", []string{"riscv64"})
		w.Put(pod("two", "1"))
		w.want("two", "Unschedulable: 0/1 nodes are available: 1 node(s) had architecture arm64, for which there is no image app (only for riscv64). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
		time.Sleep(time.Second)
		annotated := pod("two", "1")
		annotated.Annotations = map[string]string{kube.ArchitecturesAnnotation: "arm64"}
		w.Put(annotated)
		w.want("two", "a")
		w.Put(pod("three", "1"))
		time.Sleep(time.Second)
		known.saw("app", nil) // as at first: everybody may try
		w.want("three", "a")
	})
}

// updates picks the writes about one kind.
func updates(writes []string, kind string) (out []string) {
	for _, line := range writes {
		if strings.HasPrefix(line, "update "+kind+" ") {
			out = append(out, line)
		}
	}
	return out
}

// sessions stands for the connections of nodes.
type sessions struct {
	lost map[string]bool
	saw  func(node string)
}

func (s *sessions) Presence(node string) (bool, time.Time) { return !s.lost[node], time.Time{} }

func (s *sessions) Watch(_ context.Context, saw func(node string)) { s.saw = saw }

func (s *sessions) set(node string, connected bool) {
	s.lost[node] = !connected
	s.saw(node)
	synctest.Wait()
}

// A node that is not connected now is the last choice; one that loses its connection often is avoided until that is long ago.
func TestPrefersGoodConnections(t *testing.T) {
	play(t, func(w *world) {
		links := &sessions{lost: map[string]bool{}}
		w.links = links
		w.Put(node("a", "64"))
		w.Put(node("b", "4")) // less is left there
		w.start()
		links.set("a", true)
		links.set("b", true)
		place := func(name, where string) {
			w.Helper()
			w.Put(pod(name, "1"))
			w.want(name, where)
			w.Remove(kube.Pod, "default", name)
		}
		place("p1", "a")
		links.set("a", false)
		place("p2", "b")
		links.set("a", true)
		place("p3", "b") // it was lost a moment ago
		links.set("b", false)
		place("p4", "a")
		links.set("b", true)
		for range 3 {
			links.set("a", false)
			links.set("a", true)
		}
		place("p5", "b")
		time.Sleep(24 * time.Hour)
		place("p6", "a")
	})
}
