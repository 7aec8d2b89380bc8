package disruption_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/disruption"
	"petrel.dev/petrel/hub/control/disruption/budget"
	"petrel.dev/petrel/internal/kube"
)

// scales knows Deployments and ReplicaSets.
type scales struct{ control.Reader }

func (s scales) Scale(_ context.Context, ref *metav1.OwnerReference, namespace string) (kube.Object, int32, error) {
	switch ref.Kind {
	case "Deployment":
		if d, ok := control.Get[*appsv1.Deployment](s, kube.Deployment, namespace, ref.Name); ok {
			return d, *d.Spec.Replicas, nil
		}
		return nil, 0, nil
	case "ReplicaSet":
		if rs, ok := control.Get[*appsv1.ReplicaSet](s, kube.ReplicaSet, namespace, ref.Name); ok {
			return rs, *rs.Spec.Replicas, nil
		}
		return nil, 0, nil
	}
	return nil, 0, errors.New("jobs.batch does not implement the scale subresource")
}

// world is a namespace with the controller.
type world struct {
	*testing.T
	*controltest.Client
	events *controltest.Events
}

func start(t *testing.T) *world {
	w := &world{t, controltest.New(t), &controltest.Events{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := disruption.New(disruption.Config{Client: w.Client, Events: w.events, Scales: scales{w.Client}})
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func owned(by kube.Object, gvk kube.GVK) []metav1.OwnerReference {
	if by == nil {
		return nil
	}
	yes := true
	return []metav1.OwnerReference{{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Name: by.GetName(), UID: by.GetUID(), Controller: &yes}}
}

func (w *world) pod(name string, ready bool, owner ...metav1.OwnerReference) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}, OwnerReferences: owner},
		Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return w.Put(p).(*corev1.Pod)
}

func (w *world) budget(change func(*policyv1.PodDisruptionBudgetSpec)) {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", Generation: 1},
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	change(&b.Spec)
	w.Put(b)
}

func (w *world) current() *policyv1.PodDisruptionBudget {
	synctest.Wait()
	return w.Stored(kube.PodDisruptionBudget, "ns")[0].(*policyv1.PodDisruptionBudget)
}

func (w *world) want(healthy, desired, expected, allowed int32) {
	w.Helper()
	s := w.current().Status
	got := fmt.Sprint(s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed)
	if want := fmt.Sprint(healthy, desired, expected, allowed); got != want {
		w.Errorf("healthy, desired, expected, allowed = %s, want %s; %+v", got, want, s)
	}
}

func minAvailable(v intstr.IntOrString) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = &v }
}

func maxUnavailable(v intstr.IntOrString) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(s *policyv1.PodDisruptionBudgetSpec) { s.MaxUnavailable = &v }
}

// The budget follows its pods; an eviction that is spent and does not come counts again after two minutes.
func TestFollowsItsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.budget(minAvailable(intstr.FromInt32(2)))
		w.want(0, 2, 0, 0)
		if e := w.events.Take(); !slices.Contains(e, "Normal NoPods PodDisruptionBudget/b: No matching pods found") {
			t.Errorf("events %q", e)
		}
		w.pod("a", true)
		w.pod("b", true)
		w.pod("c", false)
		w.want(2, 2, 3, 0)
		w.pod("c", true)
		w.want(3, 2, 3, 1)

		spent, err := budget.Spend(w.current(), "c", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Update(t.Context(), spent, "status"); err != nil {
			t.Fatal(err)
		}
		w.want(2, 2, 3, 0)
		time.Sleep(budget.DeletionTimeout + time.Second)
		w.want(3, 2, 3, 1)
		if e := w.events.Take(); !slices.Contains(e, "Warning NotDeleted Pod/c: Pod was expected by PDB ns/b to be deleted but it wasn't") {
			t.Errorf("events %q", e)
		}
		if s := w.current().Status; len(s.DisruptedPods) != 0 {
			t.Errorf("disrupted pods %v", s.DisruptedPods)
		}

		w.Remove(kube.Pod, "ns", "a")
		w.want(2, 2, 2, 0)
		w.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if writes := w.Writes(); len(writes) > 0 {
			t.Errorf("written while nothing happened: %q", writes)
		}
	})
}

// Percentages are of what the pods' controllers want: of a Deployment once, although a rollout has two ReplicaSets.
func TestPercentagesOfTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		n := func(n int32) *int32 { return &n }
		d := w.Put(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "d", Generation: 1}, Spec: appsv1.DeploymentSpec{Replicas: n(5)}})
		var sets []kube.Object
		for _, name := range []string{"old", "new"} {
			sets = append(sets, w.Put(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), OwnerReferences: owned(d, kube.Deployment)},
				Spec: appsv1.ReplicaSetSpec{Replicas: n(3)}}))
		}
		for i := range 6 {
			w.pod(fmt.Sprint("p", i), true, owned(sets[i%2], kube.ReplicaSet)...)
		}
		w.budget(maxUnavailable(intstr.FromString("30%"))) // 1.5, rounded up
		w.want(6, 3, 5, 3)
		w.budget(minAvailable(intstr.FromString("50%")))
		w.want(6, 3, 5, 3)
		up := d.(*appsv1.Deployment).DeepCopy()
		up.Spec.Replicas = n(9)
		up.Generation = 2
		w.Put(up)
		w.want(6, 5, 9, 1)

		w.pod("lonely", true)
		w.want(7, 5, 9, 2)
		if e := w.events.Take(); !slices.ContainsFunc(e, func(s string) bool { return strings.Contains(s, "UnmanagedPods") }) {
			t.Errorf("events %q", e)
		}
	})
}

// What cannot be counted allows nothing, and says why.
func TestOwnerWithoutScale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.pod("a", true)
		w.budget(minAvailable(intstr.FromInt32(0)))
		w.want(1, 0, 1, 1)
		yes := true
		w.pod("b", true, metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "j", Controller: &yes})
		w.budget(maxUnavailable(intstr.FromInt32(1)))
		c := w.current().Status.Conditions[0]
		if c.Reason != policyv1.SyncFailedReason || c.Message != "jobs.batch does not implement the scale subresource" || w.current().Status.DisruptionsAllowed != 0 {
			t.Errorf("status %+v", w.current().Status)
		}
	})
}

// A pod whose announced deletion does not come loses the announcement, unless its own node has made it.
func TestStaleAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		announce := func(name, reason string) {
			p := w.pod(name, true)
			p = p.DeepCopy()
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: metav1.Now()})
			w.Put(p)
		}
		announce("a", "PreemptionByScheduler")
		announce("b", corev1.PodReasonTerminationByKubelet)
		status := func(name string) corev1.ConditionStatus {
			synctest.Wait()
			p, _ := control.Get[*corev1.Pod](w.Client, kube.Pod, "ns", name)
			return kube.FindCondition(p.Status.Conditions, corev1.DisruptionTarget).Status
		}
		time.Sleep(time.Minute)
		if status("a") != corev1.ConditionTrue {
			t.Error("taken back at once")
		}
		time.Sleep(2 * time.Minute)
		if status("a") != corev1.ConditionFalse || status("b") != corev1.ConditionTrue {
			t.Errorf("a %s, b %s", status("a"), status("b"))
		}
	})
}
