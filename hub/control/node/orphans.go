package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// quarantine is how long a pod may be bound to a node that does not exist: Node and pods may be made in any order.
const quarantine = 5 * time.Second

// orphans is the fifth job: pods that are bound to a name that no Node has are removed. Its state is owned by the loop's worker.
type orphans struct {
	client  control.Client
	missing map[string]time.Time // by node: since when pods are bound to a name that no Node has. An entry goes with the pods
}

// forget drops what is kept about a name: its Node exists, or exists again.
func (o *orphans) forget(node string) { delete(o.missing, node) }

// collect removes the pods of a Node that does not exist: no agent is left that could report that they have ended.
func (o *orphans) collect(ctx context.Context, node string) (time.Duration, error) {
	pods := podsOn(o.client, node)
	if len(pods) == 0 {
		delete(o.missing, node)
		return 0, nil
	}
	since, ok := o.missing[node]
	if !ok {
		since = time.Now()
		o.missing[node] = since
	}
	if wait := quarantine - time.Since(since); wait > 0 {
		return wait, nil
	}
	zero := int64(0)
	return 0, control.InParallel(len(pods), func(i int) error {
		p := pods[i]
		if len(p.Finalizers) > 0 && !control.PodFinished(p) {
			if _, err := o.client.Update(ctx, lostWithNode(p), "status"); err != nil {
				return control.IgnoreNotFound(err)
			}
		}
		uid := p.UID
		err := o.client.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsConflict(err) {
			return nil
		}
		return control.IgnoreNotFound(err)
	})
}

// lostWithNode returns a pod that stays in the API, because it has a finalizer, as one that has failed: its phase would otherwise be
// Running permanently, and who waits for its end would wait as long.
func lostWithNode(p *corev1.Pod) *corev1.Pod {
	lost := p.DeepCopy()
	lost.Status.Phase = corev1.PodFailed
	lost.Status.Conditions = kube.SetCondition(lost.Status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation,
		LastTransitionTime: metav1.Now(), Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
	})
	return lost
}
