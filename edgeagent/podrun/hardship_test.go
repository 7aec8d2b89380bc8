package podrun_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deleted is a pod whose deletion has been asked for.
func deleted(p *corev1.Pod, grace int64) *corev1.Pod {
	p = p.DeepCopy()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &grace
	return p
}

// TestLessPatience: a second "kubectl delete" with a shorter grace is heeded while the first one's still runs, in the
// preStop hook too.
func TestLessPatience(t *testing.T) {
	for _, hook := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			defer n.stop()
			n.fake.Deaf["main"] = true
			p := aPod("p")
			if hook {
				p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3000}}}
			}
			n.apply(true, p)
			n.apply(true, deleted(p, 3600))
			time.Sleep(time.Minute)
			n.settle()
			n.want("p", "Running main#0 running")
			n.apply(true, deleted(p, 5))
			time.Sleep(6 * time.Second)
			n.settle()
			if !n.gone["p"] {
				t.Errorf("hook %v: pod is not gone: %s", hook, n.line("p"))
			}
		})
	}
}

// TestRuntimeAwayWhileStopping: a container that is being stopped is not told a second time because containerd was away.
func TestRuntimeAwayWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.fake.Deaf["main"] = true
		var away atomic.Bool
		n.fake.ContainersError = func() error {
			if away.Load() {
				return errors.New("containerd is away")
			}
			return nil
		}
		p := aPod("p")
		n.apply(true, p)
		n.apply(true, deleted(p, 30))
		time.Sleep(5 * time.Second)
		away.Store(true)
		time.Sleep(5 * time.Second)
		away.Store(false)
		time.Sleep(10 * time.Second)
		n.settle()
		if got := n.fake.Count("Signal"); got != 1 {
			t.Errorf("%d signals within the grace, want 1", got)
		}
		time.Sleep(15 * time.Second)
		n.settle()
		if !n.gone["p"] || n.fake.Count("Signal") != 2 {
			t.Errorf("after the grace: %s, %d signals", n.line("p"), n.fake.Count("Signal"))
		}
	})
}

// TestNobodyPullsForTheDead: the image of a deleted pod, or one that the pod does not want any more, is not fetched on.
func TestNobodyPullsForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		var pulling atomic.Int32
		n.fake.PullWait = func(ctx context.Context, ref string) {
			pulling.Add(1)
			defer pulling.Add(-1)
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
			}
		}
		image := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Containers[0].Image = name } }
		n.apply(true, aPod("p", image("huge:1")))
		n.apply(true, aPod("p", image("huge:2")))
		if got := pulling.Load(); got != 1 {
			t.Errorf("%d pulls after a change of the image, want 1", got)
		}
		n.apply(true)
		if got := pulling.Load(); got != 0 || n.table.Running() != 0 {
			t.Errorf("%d pulls for a pod that is gone; %d pods", got, n.table.Running())
		}
	})
}

// TestDroppedStaysDropped: a pod that has left the set while it is being stopped is not brought back by a new life of the
// agent that has not heard from the hub.
func TestDroppedStaysDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.fake.Deaf["main"] = true
		n.apply(true, aPod("p"))
		n.apply(false)
		time.Sleep(5 * time.Second)
		n.stop()
		n.start()
		defer func() { n.stop() }()
		n.apply(false)
		time.Sleep(40 * time.Second)
		n.settle()
		if _, err := os.Stat(filepath.Join(n.dir, "p")); err == nil || n.fake.Count("Start") != 1 {
			t.Error("the pod is still there")
		}
	})
}

// TestRebootWithoutConfigMap: a pod goes on when its ConfigMap is deleted, but it is not started anew without it.
func TestRebootWithoutConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cfg", Namespace: "default", UID: "c"}, Data: map[string]string{"A": "1"}}
		p := aPod("p", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cfg"}}}}}
		})
		n.apply(true, p, cm)
		n.apply(true, p)
		n.want("p", "Running main#0 running")
		n.stop()
		n.fake.Exit("p", "main", 255)
		n.start()
		defer func() { n.stop() }()
		n.apply(true, p)
		if got := n.fake.Count("Start"); got != 1 {
			t.Errorf("started %d times, want 1: %s", got, n.line("p"))
		}
		n.apply(true, p, cm)
		n.want("p", "Running main#1 running")
	})
}

// TestNodeAddressChanges: a pod on the node's own network follows it.
func TestNodeAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.apply(true, aPod("p", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		if got := n.status["p"].PodIP; got != "192.0.2.1" {
			t.Errorf("at %q", got)
		}
		n.ip = "192.0.2.77"
		n.table.Refresh()
		n.settle()
		if st := n.status["p"]; st.PodIP != "192.0.2.77" || st.HostIP != "192.0.2.77" {
			t.Errorf("pod at %q on a host at %q", st.PodIP, st.HostIP)
		}
	})
}
