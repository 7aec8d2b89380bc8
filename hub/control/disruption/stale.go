package disruption

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// staleAfter is how long a pod may announce a disruption that does not come.
const staleAfter = 2 * time.Minute

// stale takes back the condition DisruptionTarget of pods that nobody deletes.
type stale struct {
	client control.Client
	loop   *control.Loop
}

func newStale(cfg Config) *stale {
	s := &stale{client: cfg.Client}
	s.loop = &control.Loop{
		Name: "disruption/stale", Client: cfg.Client, Log: cfg.Log,
		Reconcile: s.reconcile,
		Sources: []control.Source{{GVK: kube.Pod, Keys: func(ch control.Change) []control.Key {
			if p, ok := ch.New.(*corev1.Pod); ok && announced(p) != nil {
				return []control.Key{control.KeyOf(p)}
			}
			return nil
		}}},
	}
	return s
}

// announced returns the condition of a pod that is to be deleted, and is not yet; nil when there is none. One that the node has
// set stays: the pod may take long to end.
func announced(p *corev1.Pod) *corev1.PodCondition {
	c := kube.FindCondition(p.Status.Conditions, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == corev1.PodReasonTerminationByKubelet ||
		p.DeletionTimestamp != nil || control.PodFinished(p) {
		return nil
	}
	return c
}

func (s *stale) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	p, ok := control.Get[*corev1.Pod](s.client, kube.Pod, key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	c := announced(p)
	if c == nil {
		return 0, nil
	}
	now := time.Now()
	if wait := c.LastTransitionTime.Add(staleAfter).Sub(now); wait > 0 {
		return wait, nil
	}
	up := p.DeepCopy()
	up.Status.Conditions = kube.SetCondition(up.Status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, ObservedGeneration: p.Generation, LastTransitionTime: metav1.NewTime(now),
	})
	_, err := s.client.Update(ctx, up, "status")
	return 0, control.IgnoreNotFound(err)
}
