package schedule_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// metric returns the sum of a metric's series that have a label of a value.
func (w *world) metric(name, value string) (sum int) {
	w.Helper()
	synctest.Wait()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.metrics)
	families, err := reg.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == value {
					sum += int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
				}
			}
		}
	}
	return sum
}

// attempts returns how many attempts there were since the last call.
func (w *world) attempts(since *int) int {
	w.Helper()
	n := w.metric("scheduler_schedule_attempts_total", "default-scheduler")
	d := n - *since
	*since = n
	return d
}

func (w *world) end(name string) {
	p := w.get(name).DeepCopy()
	p.Status.Phase = corev1.PodSucceeded
	w.Put(p)
}

// A pod that lacks room is tried again when a node gets enough of it, and after nothing else.
func TestOnlyWhatHelpsWakes(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "4"))
		for i := range 4 {
			w.Put(running(fmt.Sprint("r", i), "1", 0, "a"))
		}
		w.start()
		tries := 0
		w.Put(pod("big", "2"))
		if n := w.attempts(&tries); n != 1 {
			t.Fatalf("%d attempts", n)
		}
		w.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
		w.Put(running("came", "0", 0, "a"))
		labelled := w.get("r3").DeepCopy()
		labelled.Labels = map[string]string{"app": "web"}
		w.Put(labelled)
		time.Sleep(time.Minute)
		w.end("r0") // not enough
		time.Sleep(time.Minute)
		w.want("big", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
		if n := w.attempts(&tries); n != 0 {
			t.Errorf("%d attempts after what could not help", n)
		}
		w.end("r1")
		w.want("big", "a")
		if n := w.attempts(&tries); n != 1 {
			t.Errorf("%d attempts for one that fits", n)
		}
	})
}

// Of a thousand pods that wait alike, one that ends wakes about as many as have room; the first that came is the first that goes.
func TestOneEndDoesNotWakeAll(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "2"))
		w.Put(running("r0", "1", 0, "a"))
		w.Put(running("r1", "1", 0, "a"))
		w.start()
		for i := range 1000 {
			w.Put(pod(fmt.Sprintf("p%03d", i), "1"))
			if i == 0 {
				synctest.Wait()
			}
		}
		tries := 0
		w.attempts(&tries)
		if n := w.metric("scheduler_pending_pods", "unschedulable"); n != 1000 {
			t.Errorf("%d pods are parked", n)
		}
		time.Sleep(time.Minute)
		w.end("r0")
		w.want("p000", "a")
		if n := w.attempts(&tries); n > 5 {
			t.Errorf("%d attempts for one place", n)
		}
		time.Sleep(time.Second)
		w.Put(node("b", "100"))
		time.Sleep(maxWait)
		if n := w.metric("scheduler_schedule_attempts_total", "scheduled"); n != 101 {
			t.Errorf("%d are placed on room for 101", n)
		}
	})
}

// Who waits has the room that becomes free, however long its back-off is, before one that comes at that moment.
func TestNobodyPassesThoseWhoWait(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(running("r", "1", 0, "a"))
		w.start()
		w.Put(pod("old", "1"))
		for i := range 20 { // attempts without success
			w.Put(node(fmt.Sprint("small-", i), "500m"))
			time.Sleep(10 * time.Second)
		}
		w.end("r")
		w.Put(pod("new", "1"))
		w.want("old", "a")
	})
}

// A pod that needs more room than becomes free at once waits while smaller ones of equal priority come and go: no room is gathered for it, as in
// Kubernetes. When enough is free in one place at one moment it comes first, by its age; a priority above the others' ends the wait.
func TestLargePodsAmongSmallOnes(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "2"))
		w.Put(running("r1", "1", 0, "a"))
		w.Put(running("r2", "1", 0, "a"))
		w.start()
		w.Put(prior("large", "2", 0))
		for i := range 20 { // one ends, and a small one follows
			w.Put(pod(fmt.Sprint("small-", i), "1"))
			time.Sleep(maxWait)
			w.end([]string{"r1", "r2"}[i%2])
			time.Sleep(maxWait)
			w.want(fmt.Sprint("small-", i), "a")
			w.Remove(kube.Pod, "default", fmt.Sprint("small-", i))
			w.Put(running([]string{"r1", "r2"}[i%2], "1", 0, "a"))
			time.Sleep(maxWait)
		}
		if at := w.at("large"); !strings.HasPrefix(at, "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.") {
			t.Errorf("the large one: %s", at)
		}
		w.Put(pod("young", "1"))
		time.Sleep(maxWait)
		w.Put(node("a", "4"))
		w.want("large", "a")
		if at := w.at("young"); at == "a" {
			t.Error("the younger one came first")
		}

		w.Put(prior("larger", "2", 1))
		w.wantNominated("larger", "a")
		if !w.leaving("large") && !w.leaving("r1") && !w.leaving("r2") {
			t.Error("nobody leaves for the more important one")
		}
	})
}

// A pod that has to be near another is tried when that one is placed, by this scheduler too.
func TestAffinityWaitsForItsPod(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "4"))
		w.start()
		near := pod("near", "1")
		near.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}}}}
		w.Put(near)
		w.want("near", "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match pod affinity rules. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
		db := pod("db", "1")
		db.Labels = map[string]string{"app": "db"}
		w.Put(db)
		w.want("db", "a")
		time.Sleep(time.Second)
		w.want("near", "a")
	})
}

// Every five minutes a pod is tried again whatever happens, which nobody sees: nothing is written.
func TestFlush(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.start()
		w.Put(pod("big", "2"))
		synctest.Wait()
		w.Writes()
		w.events.Take()
		tries := 0
		w.attempts(&tries)
		time.Sleep(24 * time.Hour)
		if n := w.attempts(&tries); n < 280 || n > 290 {
			t.Errorf("%d attempts in a day", n)
		}
		if wrote := w.Writes(); len(wrote) > 0 {
			t.Errorf("wrote %v", wrote)
		}
		w.wantEvents()
	})
}

// Pods with gates are counted, and not touched.
func TestGatedPodsAreCounted(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.start()
		gated := pod("gated", "1")
		gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "quota"}}
		w.Put(gated)
		w.want("gated", "untouched")
		if n := w.metric("scheduler_pending_pods", "gated"); n != 1 {
			t.Errorf("%d pods are gated", n)
		}
		open := w.get("gated").DeepCopy()
		open.Spec.SchedulingGates, open.Generation = nil, 2
		w.Put(open)
		w.want("gated", "a")
		if n := w.metric("scheduler_pending_pods", "gated"); n != 0 {
			t.Errorf("%d pods are gated", n)
		}
		if c := control.PodCondition(w.get("gated"), corev1.PodScheduled); c.Status != corev1.ConditionTrue {
			t.Errorf("%+v", c)
		}
	})
}

// A pod in whose place another one was bound meanwhile is not lost: its room is free again, for the next.
func TestRoomOfAnEvictedPromiseIsFree(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(running("low", "1", 1, "a"))
		w.start()
		w.Put(prior("high", "1", 100))
		w.wantNominated("high", "a")
		w.Put(prior("mid", "1", 50))
		time.Sleep(maxWait)
		w.Remove(kube.Pod, "default", "low")
		w.Remove(kube.Pod, "default", "high")
		time.Sleep(maxWait)
		w.want("mid", "a")
	})
}
