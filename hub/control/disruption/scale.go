package disruption

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// scaleOf is the scale of a pod's controller. That of a ReplicaSet which a Deployment controls is the Deployment's: during a
// rollout there are two such ReplicaSets, and neither wants all pods.
func (c *Controller) scaleOf(ctx context.Context, ref *metav1.OwnerReference, namespace string) (types.UID, int32, bool, error) {
	owner, replicas, err := c.scales.Scale(ctx, ref, namespace)
	if err != nil || owner == nil || owner.GetUID() != ref.UID {
		return "", 0, false, err
	}
	if ref.Kind == kube.ReplicaSet.Kind {
		if above := metav1.GetControllerOf(owner); above != nil && above.Kind == kube.Deployment.Kind {
			return c.scaleOf(ctx, above, namespace)
		}
	}
	return owner.GetUID(), replicas, true, nil
}
