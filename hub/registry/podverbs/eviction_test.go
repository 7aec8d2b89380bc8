package podverbs_test

import (
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// protected makes pods that are ready, and a budget that lets allowed of them go.
func protected(t *testing.T, r *registry.Registry, pods int, allowed int32) {
	t.Helper()
	c := r.Client()
	for i := range pods {
		p := newPod(fmt.Sprint("p", i), "edge-1")
		p.Labels = map[string]string{"app": "web"}
		p = registrytest.Create(t, r, p)
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		if _, err := c.Update(ctx, p, "status"); err != nil {
			t.Fatal(err)
		}
	}
	some := intstr.FromInt32(allowed)
	b := registrytest.Create(t, r, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"},
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &some, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}})
	b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: int32(pods), DesiredHealthy: int32(pods) - allowed, ExpectedPods: int32(pods), DisruptionsAllowed: allowed}
	if _, err := c.Update(ctx, b, "status"); err != nil {
		t.Fatal(err)
	}
}

func evict(t *testing.T, r *registry.Registry, pod string, dry ...string) error {
	t.Helper()
	_, err := r.Create(ctx, registrytest.Target(t, kube.Pod, "default", pod, "eviction"),
		&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod}}, &metav1.CreateOptions{DryRun: dry})
	return err
}

const violated = "Cannot evict pod as it would violate the pod's disruption budget."

// Of evictions that come at once, as many succeed as the budget allows, and a dry run takes nothing.
func TestEvictionSpendsTheBudget(t *testing.T) {
	r := registrytest.New(t)
	protected(t, r, 12, 3)
	for range 5 {
		if err := evict(t, r, "p0", metav1.DryRunAll); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	gone, refused, left := 0, 0, "" // left is a pod that has not been evicted
	for i := range 12 {
		wg.Go(func() {
			pod := fmt.Sprint("p", i)
			err := evict(t, r, pod)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				gone++
			case apierrors.IsTooManyRequests(err) && err.Error() == violated:
				refused++
				left = pod
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, err := r.Get(ctx, registrytest.Target(t, kube.PodDisruptionBudget, "default", "b"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := registrytest.Decode[policyv1.PodDisruptionBudget](t, b.JSON).Status
	if gone != 3 || refused != 9 || s.DisruptionsAllowed != 0 || len(s.DisruptedPods) != 3 {
		t.Errorf("%d evicted, %d refused, budget %+v", gone, refused, s)
	}
	registrytest.WantError(t, evict(t, r, left, metav1.DryRunAll), 429, violated)
}

// What the budget is not about goes without it: pods that have not begun or have ended, pods of other labels, unhealthy pods beside
// enough healthy ones. A second budget makes the first one meaningless, which upstream refuses too.
func TestEvictionBesidesTheBudget(t *testing.T) {
	r := registrytest.New(t)
	protected(t, r, 2, 0)
	registrytest.WantError(t, evict(t, r, "p0"), 429, violated)
	c := r.Client()
	labelled := func(name string, phase corev1.PodPhase) *corev1.Pod {
		p := newPod(name, "edge-1")
		p.Labels = map[string]string{"app": "web"}
		p = registrytest.Create(t, r, p)
		p.Status.Phase = phase
		if _, err := c.Update(ctx, p, "status"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	labelled("waits", corev1.PodPending)
	labelled("ended", corev1.PodFailed)
	labelled("unready", corev1.PodRunning)
	registrytest.Create(t, r, newPod("other", "edge-1"))
	for _, name := range []string{"waits", "ended", "other", "unready"} {
		if err := evict(t, r, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	one := intstr.FromInt32(1)
	registrytest.Create(t, r, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{}}})
	registrytest.WantError(t, evict(t, r, "p0"), 500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
	registrytest.WantError(t, evict(t, r, "missing"), 404, `pods "missing" not found`)
}
