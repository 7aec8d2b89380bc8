package replicaset

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func webSet(n int32) *appsv1.ReplicaSet {
	l := map[string]string{"app": "web"}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Generation: 1},
		Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: l},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}},
	}
}

func start(t *testing.T, c *controltest.Client) *controltest.Events {
	ev := &controltest.Events{}
	ctl := New(Config{Client: c, Events: ev})
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
	return ev
}

func pods(c *controltest.Client) []*corev1.Pod {
	var out []*corev1.Pod
	for _, o := range c.Stored(kube.Pod, "") {
		if p := o.(*corev1.Pod); control.PodActive(p) {
			out = append(out, p)
		}
	}
	return out
}

func stored(t *testing.T, c *controltest.Client) *appsv1.ReplicaSet {
	rs, ok := control.Get[*appsv1.ReplicaSet](c, kube.ReplicaSet, "default", "web")
	if !ok {
		t.Fatal("no ReplicaSet")
	}
	return rs
}

func setReplicas(t *testing.T, c *controltest.Client, n int32) {
	rs := stored(t, c).DeepCopy()
	rs.Spec.Replicas = &n
	if _, err := c.Update(t.Context(), rs, ""); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func setReady(c *controltest.Client, p *corev1.Pod, since time.Time) {
	p = p.DeepCopy()
	p.Spec.NodeName = "n1"
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(since)}}
	c.Put(p)
}

func TestScalesUpAndDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, webSet(3))
		ev := start(t, c)
		if n := len(pods(c)); n != 3 {
			t.Fatalf("%d pods, want 3", n)
		}
		p := pods(c)[0]
		if p.Labels["app"] != "web" || !metav1.IsControlledBy(p, stored(t, c)) || !strings.HasPrefix(p.Name, "web-") {
			t.Errorf("pod: %+v", p.ObjectMeta)
		}
		if got := ev.Take(); len(got) != 3 || !strings.HasPrefix(got[0], "Normal SuccessfulCreate ReplicaSet/web: Created pod: web-") {
			t.Errorf("events: %q", got)
		}
		for _, p := range pods(c) {
			setReady(c, p, time.Now())
		}
		synctest.Wait()
		if s := stored(t, c).Status; s.Replicas != 3 || s.FullyLabeledReplicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 3 || s.ObservedGeneration != 1 {
			t.Errorf("status: %+v", s)
		}
		setReplicas(t, c, 1)
		if n := len(pods(c)); n != 1 {
			t.Errorf("%d pods after scaling down, want 1", n)
		}
		if s := stored(t, c).Status; s.Replicas != 1 || *s.TerminatingReplicas != 2 {
			t.Errorf("status: %+v", s)
		}
		c.Writes()
		time.Sleep(24 * time.Hour)
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("idle controller wrote %q", w)
		}
	})
}

func TestReplacesFailedPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, webSet(1))
		start(t, c)
		p := pods(c)[0].DeepCopy()
		p.Status.Phase = corev1.PodFailed
		c.Put(p)
		synctest.Wait()
		if got := pods(c); len(got) != 1 || got[0].Name == p.Name {
			t.Errorf("a failed pod should be replaced: %v", got)
		}
	})
}

func TestMinReadySecondsComesTrueByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs := webSet(1)
		rs.Spec.MinReadySeconds = 20
		c := controltest.New(t, rs)
		start(t, c)
		setReady(c, pods(c)[0], time.Now())
		time.Sleep(19 * time.Second)
		if s := stored(t, c).Status; s.ReadyReplicas != 1 || s.AvailableReplicas != 0 {
			t.Errorf("after 19 s: %+v", s)
		}
		time.Sleep(2 * time.Second)
		if s := stored(t, c).Status; s.AvailableReplicas != 1 {
			t.Errorf("after 21 s: %+v", s)
		}
	})
}

func TestAdoptsAndReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stray := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "stray", Labels: map[string]string{"app": "web"}}}
		other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other", Labels: map[string]string{"app": "db"}}}
		c := controltest.New(t, webSet(2), stray, other)
		start(t, c)
		p, _ := control.Get[*corev1.Pod](c, kube.Pod, "default", "stray")
		if !metav1.IsControlledBy(p, stored(t, c)) || len(pods(c)) != 3 {
			t.Fatalf("stray pod should be adopted: %v", p.OwnerReferences)
		}
		p = p.DeepCopy()
		p.Labels["app"] = "debug"
		c.Put(p)
		synctest.Wait()
		p, _ = control.Get[*corev1.Pod](c, kube.Pod, "default", "stray")
		if len(p.OwnerReferences) != 0 || len(pods(c)) != 4 {
			t.Errorf("pod that no longer matches should be released and replaced: %v, %d pods", p.OwnerReferences, len(pods(c)))
		}
		o, _ := control.Get[*corev1.Pod](c, kube.Pod, "default", "other")
		if len(o.OwnerReferences) != 0 {
			t.Error("adopted a pod that does not match")
		}
	})
}

func TestFailureIsReportedAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		refused := 0
		quota := true
		c.Refuse = func(verb string, o kube.Object, _ string) error {
			if _, ok := o.(*corev1.Pod); ok && verb == "create" && quota {
				refused++
				return errors.New("exceeded quota")
			}
			return nil
		}
		ev := start(t, c)
		c.Put(webSet(100))
		synctest.Wait()
		if refused != 1 {
			t.Errorf("%d refused creations, want one: the rest of a hopeless batch is not tried", refused)
		}
		conds := stored(t, c).Status.Conditions
		if len(conds) != 1 || conds[0].Type != appsv1.ReplicaSetReplicaFailure || conds[0].Reason != "FailedCreate" || conds[0].Message != "exceeded quota" {
			t.Errorf("conditions: %+v", conds)
		}
		if got := ev.Take(); len(got) != 1 || got[0] != "Warning FailedCreate ReplicaSet/web: Error creating: exceeded quota" {
			t.Errorf("events: %q", got)
		}
		quota = false
		time.Sleep(10 * time.Minute)
		if s := stored(t, c).Status; s.Replicas != 100 || len(s.Conditions) != 0 {
			t.Errorf("healed: %+v", s)
		}
	})
}

func TestDeferredPodsGoLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dark := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dark"},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: kube.DarkCondition, Status: corev1.ConditionTrue}}}}
		rs := webSet(4)
		rs.Annotations = map[string]string{DeferredAnnotation: "1"}
		c := controltest.New(t, rs, dark)
		start(t, c)
		for i, p := range pods(c) {
			setReady(c, p, time.Now())
			if i < 2 { // two on the dark node, not ready; one of them is deferred
				p, _ = control.Get[*corev1.Pod](c, kube.Pod, "default", p.Name)
				p = p.DeepCopy()
				p.Spec.NodeName = "dark"
				p.Status.Conditions = nil
				c.Put(p)
			}
		}
		setReplicas(t, c, 1)
		if got := pods(c); len(got) != 1 || got[0].Spec.NodeName != "dark" {
			t.Errorf("the deferred pod should remain: %v", got)
		}
	})
}

// However far the cache is behind, there are never more pods than wanted, and in the end exactly as many.
func TestNeverOverCreatesOnAnOldCache(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 30).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			want := int32(5)
			c := controltest.New(t, webSet(want))
			ctl := New(Config{Client: c, Events: &controltest.Events{}})
			c.Lag(true)
			go func() { _ = ctl.Run(ctx) }()
			c.Step(1)
			highest := want
			for i, s := range steps {
				time.Sleep(time.Second)
				switch {
				case s < 6:
					c.Step(s)
				case s == 6:
					want = int32(len(steps)*i) % 8
					highest = max(highest, want)
					rs := c.Stored(kube.ReplicaSet, "")[0].(*appsv1.ReplicaSet).DeepCopy()
					rs.Spec.Replicas = ptr.To(want)
					if _, err := c.Update(ctx, rs, ""); err != nil {
						rt.Fatal(err)
					}
				case s == 7: // a user deletes a pod
					if ps := pods(c); len(ps) > 0 {
						c.Remove(kube.Pod, "default", ps[0].Name)
					}
				default:
					ctl.loop.Enqueue(control.Key{Namespace: "default", Name: "web"})
				}
				time.Sleep(time.Second)
				if n := len(pods(c)); n > int(highest) {
					rt.Fatalf("%d pods, never more than %d wanted", n, highest)
				}
			}
			c.Lag(false)
			time.Sleep(time.Minute)
			if n := len(pods(c)); n != int(want) {
				rt.Fatalf("settled at %d pods, want %d", n, want)
			}
		})
	})
}

func TestNothingIsMadeInANamespaceThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := metav1.Now()
		c := controltest.New(t, webSet(3), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", DeletionTimestamp: &now}})
		start(t, c)
		if n := len(pods(c)); n != 0 {
			t.Errorf("%d pods", n)
		}
	})
}
