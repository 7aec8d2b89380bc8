package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/disruption/budget"
)

// found is what the pods of a budget come to.
type found struct {
	budget.Count
	unmanaged bool          // some have no controller, so they are not in Expected
	overdue   []*corev1.Pod // evicted, and still not being deleted
	recheck   time.Duration // until the next one is overdue; 0: never
}

// scale returns the object that decides how many pods of a kind there are, and how many: the controller of a pod, or what
// controls that. ok is false when it does not exist.
type scale func(ref *metav1.OwnerReference, namespace string) (uid types.UID, replicas int32, ok bool, err error)

// count counts the pods that the budget selects.
func count(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, of scale, now time.Time) (f found, err error) {
	expected := func() (int, error) {
		f.Expected, f.unmanaged, err = expectedPods(pods, of)
		return int(f.Expected), err
	}
	most, least := b.Spec.MaxUnavailable, b.Spec.MinAvailable
	switch {
	case most != nil:
		n, err := expected()
		if err != nil {
			return f, err
		}
		away, err := intstr.GetScaledValueFromIntOrPercent(most, n, true)
		if err != nil {
			return f, err
		}
		f.Desired = int32(max(0, n-away))
	case least != nil && least.Type == intstr.Int:
		f.Desired, f.Expected = least.IntVal, int32(len(pods))
	case least != nil:
		n, err := expected()
		if err != nil {
			return f, err
		}
		there, err := intstr.GetScaledValueFromIntOrPercent(least, n, true)
		if err != nil {
			return f, err
		}
		f.Desired = int32(there)
	}
	f.look(b, pods, now)
	return f, nil
}

// look counts healthy pods, and those that an eviction has spent the budget for.
func (f *found) look(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, now time.Time) {
	f.Disrupted = map[string]metav1.Time{}
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		if since, spent := b.Status.DisruptedPods[p.Name]; spent {
			if wait := since.Add(budget.DeletionTimeout).Sub(now); wait > 0 {
				f.Disrupted[p.Name] = since
				if f.recheck == 0 || wait < f.recheck {
					f.recheck = wait
				}
				continue
			}
			f.overdue = append(f.overdue, p)
		}
		if control.PodReady(p) {
			f.Healthy++
		}
	}
}

// expectedPods adds up the scales of all controllers of the pods, each once.
func expectedPods(pods []*corev1.Pod, of scale) (n int32, unmanaged bool, err error) {
	known := map[types.UID]bool{}   // controllers of pods
	counted := map[types.UID]bool{} // what decides about them: two ReplicaSets of one Deployment count once
	for _, p := range pods {
		ref := metav1.GetControllerOf(p)
		if ref == nil {
			unmanaged = true
			continue
		}
		if known[ref.UID] {
			continue
		}
		uid, replicas, ok, err := of(ref, p.Namespace)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			return 0, false, fmt.Errorf("found no controllers for pod %q", p.Name)
		}
		known[ref.UID] = true
		if !counted[uid] {
			counted[uid] = true
			n += replicas
		}
	}
	return n, unmanaged, nil
}
