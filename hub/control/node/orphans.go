package node

import (
	"context"
	"time"

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
		uid := p.UID
		err := o.client.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsConflict(err) {
			return nil
		}
		return control.IgnoreNotFound(err)
	})
}
