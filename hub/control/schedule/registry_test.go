package schedule_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// hub is a registry on a real store, with one namespace and n nodes of 64 cores in ten zones.
func hub(t testing.TB, n int) control.Client {
	c := registrytest.New(t).Client()
	writes := []control.Write{{Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}}
	for i := range n {
		obj := node(fmt.Sprintf("node-%04d", i), "64")
		obj.Labels[corev1.LabelTopologyZone] = fmt.Sprintf("zone-%d", i%10)
		writes = append(writes, control.Write{Object: obj})
	}
	if err := c.Commit(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	return c
}

func create(t testing.TB, c control.Client, p *corev1.Pod) {
	t.Helper()
	p.UID, p.Status = "", corev1.PodStatus{}
	if _, err := c.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// follow sends each version of each object of a kind.
func follow(ctx context.Context, c control.Client, gvk kube.GVK) <-chan kube.Object {
	ch := make(chan kube.Object, 100_000)
	c.Subscribe(ctx, func(change control.Change) {
		if change.New != nil {
			ch <- change.New
		}
	}, gvk)
	return ch
}

// TestOverTheRegistry binds by the rules of the API and reports in Events.
func TestOverTheRegistry(t *testing.T) {
	c := hub(t, 2)
	pods, events := follow(t.Context(), c, kube.Pod), follow(t.Context(), c, kube.Event)
	recorder := control.NewRecorder(c, nil)
	s := schedule.New(schedule.Config{Client: c, Events: recorder.As(corev1.DefaultSchedulerName)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- recorder.Run(ctx) }()
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	create(t, c, pod("small", "1"))
	create(t, c, pod("big", "65"))
	conditions := map[string]*corev1.PodCondition{}
	for conditions["small"] == nil || conditions["big"] == nil {
		p := (<-pods).(*corev1.Pod)
		conditions[p.Name] = control.PodCondition(p, corev1.PodScheduled)
		if c := conditions[p.Name]; c != nil && (p.Spec.NodeName != "") != (c.Status == corev1.ConditionTrue) {
			t.Errorf("pod %s on %q says %+v", p.Name, p.Spec.NodeName, c)
		}
	}
	const lacks = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
	if c := conditions["big"]; c.Status != corev1.ConditionFalse || c.Reason != corev1.PodReasonUnschedulable || c.Message != lacks {
		t.Errorf("condition of big: %+v", c)
	}
	want := map[string]bool{"Scheduled small": true, "FailedScheduling big": true}
	for len(want) > 0 {
		e := (<-events).(*corev1.Event)
		key := e.Reason + " " + e.InvolvedObject.Name
		if !want[key] || e.Reason == "FailedScheduling" && e.Message != lacks {
			t.Fatalf("event %s: %s", key, e.Message)
		}
		delete(want, key)
	}
}

// TestPreemptionOverTheRegistry nominates, evicts and binds by the rules of the API.
func TestPreemptionOverTheRegistry(t *testing.T) {
	c := hub(t, 1)
	low := prior("low", "60", 1)
	low.Spec.NodeName = "node-0000"
	create(t, c, low)
	pods := follow(t.Context(), c, kube.Pod)
	s := schedule.New(schedule.Config{Client: c})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	create(t, c, prior("high", "60", 1000))
	for promised, leaves := false, false; !promised || !leaves; {
		p := (<-pods).(*corev1.Pod)
		promised = promised || p.Name == "high" && p.Status.NominatedNodeName == "node-0000"
		if p.Name == "low" && p.DeletionTimestamp != nil {
			d := control.PodCondition(p, corev1.DisruptionTarget)
			if leaves = true; d == nil || d.Reason != corev1.PodReasonPreemptionByScheduler || *p.DeletionGracePeriodSeconds != 30 {
				t.Errorf("low leaves with %+v", d)
			}
		}
	}
	now := int64(0)
	if err := c.Delete(t.Context(), kube.Pod, "default", "low", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	for {
		if p := (<-pods).(*corev1.Pod); p.Spec.NodeName != "" && p.Name == "high" {
			if p.Status.NominatedNodeName != "" {
				t.Errorf("it is bound, and nominated to %s", p.Status.NominatedNodeName)
			}
			return
		}
	}
}

// BenchmarkOverRegistry is the budget's measure: pods created and bound, on 1,000 nodes, all of it durable.
func BenchmarkOverRegistry(b *testing.B) {
	for _, spread := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "spread+antiaffinity"}[spread], func(b *testing.B) {
			c := hub(b, 1000)
			pods := follow(b.Context(), c, kube.Pod)
			s := schedule.New(schedule.Config{Client: c})
			go s.Run(b.Context())
			b.ResetTimer()
			const creators = 8
			for i := range creators {
				go func() {
					for n := i; n < b.N; n += creators {
						p := replica(n, spread)
						p.UID = ""
						if _, err := c.Create(b.Context(), p); err != nil {
							b.Error(err)
						}
					}
				}()
			}
			for bound := 0; bound < b.N; {
				if p := (<-pods).(*corev1.Pod); p.Spec.NodeName != "" {
					bound++
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// BenchmarkPreemption is the time from the creation of a pod until the one that must go for it is leaving and its room promised, on
// 1,000 full nodes with ten pods each; all of it durable.
func BenchmarkPreemption(b *testing.B) {
	c := hub(b, 1000)
	var writes []control.Write
	for i := range 10_000 {
		p := prior(fmt.Sprintf("low-%05d", i), "6400m", int32(i%3))
		p.UID, p.Status = "", corev1.PodStatus{}
		p.Spec.NodeName = fmt.Sprintf("node-%04d", i%1000)
		if writes = append(writes, control.Write{Object: p}); len(writes) == 1000 {
			if err := c.Commit(b.Context(), writes); err != nil {
				b.Fatal(err)
			}
			writes = nil
		}
	}
	pods := follow(b.Context(), c, kube.Pod)
	s := schedule.New(schedule.Config{Client: c})
	go s.Run(b.Context())
	for range 10_000 {
		<-pods
	}
	for i := 0; b.Loop(); i++ {
		create(b, c, prior(fmt.Sprintf("high-%05d", i), "6400m", 1000))
		for promised, leaves := false, false; !promised || !leaves; {
			p := (<-pods).(*corev1.Pod)
			promised = promised || p.Status.NominatedNodeName != ""
			leaves = leaves || p.DeletionTimestamp != nil
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/pod")
}
