package control_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/daemonset"
	"petrel.dev/petrel/hub/control/node"
	"petrel.dev/petrel/internal/kube"
)

// switched is a Presence whose nodes a test connects and cuts off.
type switched struct {
	mu   sync.Mutex           // guards what follows
	on   map[string]bool      // is connected
	seen map[string]time.Time // when it was cut off
	f    func(string)
}

func (s *switched) Presence(node string) (bool, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on[node] {
		return true, time.Now()
	}
	return false, s.seen[node]
}

func (s *switched) Watch(ctx context.Context, f func(node string)) {
	s.mu.Lock()
	s.f = f
	s.mu.Unlock()
	<-ctx.Done()
}

func (s *switched) set(on bool, nodes ...string) {
	s.mu.Lock()
	for _, n := range nodes {
		s.on[n], s.seen[n] = on, time.Now()
	}
	f := s.f
	s.mu.Unlock()
	for _, n := range nodes {
		f(n)
	}
}

// watched runs the node controller and another one on c, in a bubble of synctest, until the test ends.
func watched(t *testing.T, c *controltest.Client, other runner) *switched {
	s := &switched{on: map[string]bool{}, seen: map[string]time.Time{}}
	nodes, err := node.New(node.Config{Log: slog.New(slog.DiscardHandler), Client: c, Events: &controltest.Events{}, Presence: s, PodCIDR: netip.MustParsePrefix("10.42.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []runner{nodes, other} {
		go func() { _ = r.Run(t.Context()) }()
	}
	synctest.Wait()
	return s
}

// join puts a Node that is ready and connected.
func (s *switched) join(c *controltest.Client, name string) {
	s.set(true, name)
	c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}})
}

// TestFleetReturnsDuringARollout has all nodes but one come back at once while a DaemonSet is being updated: their pods have run all the time, and the
// update takes them one by one, as maxUnavailable wants.
func TestFleetReturnsDuringARollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := controltest.New(t), slog.New(slog.DiscardHandler)
		presence := watched(t, c, daemonset.New(daemonset.Config{Log: log, Client: c, Events: &controltest.Events{}}))
		var away []string
		for i := range 20 {
			name := fmt.Sprint("n", i)
			presence.join(c, name)
			if i > 0 {
				away = append(away, name)
			}
		}
		labels := map[string]string{"app": "agent"}
		one := intstr.FromInt32(1)
		ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent"}, Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{kube.AutonomyAnnotation: "forever"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one, MaxSurge: new(intstr.IntOrString)}}}}
		if _, err := c.Create(t.Context(), ds); err != nil {
			t.Fatal(err)
		}
		// turn has nodes that are connected start and end pods; it returns how many serve, by image.
		turn := func() map[string]int {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			serve := map[string]int{}
			for _, p := range control.List[*corev1.Pod](c, kube.Pod, "") {
				p = p.DeepCopy()
				p.Spec.NodeName = p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
				connected, _ := presence.Presence(p.Spec.NodeName)
				switch {
				case !connected:
				case p.DeletionTimestamp != nil:
					c.Remove(kube.Pod, p.Namespace, p.Name)
					continue
				case !control.PodReady(p):
					p.Status.Phase, p.Status.Conditions = corev1.PodRunning, []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
					c.Put(p)
				}
				if p.DeletionTimestamp == nil {
					serve[p.Spec.Containers[0].Image]++
				}
			}
			return serve
		}
		turn()
		if got := turn(); got["v1"] != 20 {
			t.Fatalf("at first: %v", got)
		}
		presence.set(false, away...)
		time.Sleep(kube.DarkGrace + time.Minute)
		up, _ := control.Get[*appsv1.DaemonSet](c, kube.DaemonSet, "default", "agent")
		up = up.DeepCopy()
		up.Spec.Template.Spec.Containers[0].Image = "v2"
		if _, err := c.Update(t.Context(), up, ""); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			turn()
		}
		if got := turn(); got["v2"] != 1 {
			t.Fatalf("while only one node is connected: %v", got)
		}
		refused := map[string]bool{}
		c.Refuse = func(_ string, o kube.Object, subresource string) error { // the nodes' own reports come first: everybody else comes in between
			if _, pod := o.(*corev1.Pod); !pod || subresource != "status" || refused[o.GetName()] {
				return nil
			}
			refused[o.GetName()] = true
			return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("it has changed"))
		}
		presence.set(true, away...)
		synctest.Wait()
		least := 20
		for range 60 {
			serve := 0
			for _, p := range control.List[*corev1.Pod](c, kube.Pod, "") {
				if p.DeletionTimestamp == nil {
					serve++
				}
			}
			least = min(least, serve)
			turn()
		}
		if got := turn(); got["v2"] != 20 || least < 19 {
			t.Errorf("at the end: %v; at times only %d pods were left alone", got, least)
		}
	})
}
