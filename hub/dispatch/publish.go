package dispatch

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
)

// Publish writes what whoever mints join tokens must know of this cluster: ConfigMap kube-public/petrel-cluster, and with
// an external broker Secret kube-system/petrel-broker. It writes nothing that is there already. Both namespaces must exist.
func Publish(ctx context.Context, c control.Client, cluster jointoken.Cluster) error {
	m := jointoken.ToConfigMap(cluster)
	old, ok := control.Get[*corev1.ConfigMap](c, kube.ConfigMap, m.Namespace, m.Name)
	switch {
	case !ok:
		if _, err := c.Create(ctx, m); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("publish cluster: %w", err)
		}
	case !maps.Equal(old.Data, m.Data):
		next := old.DeepCopy()
		next.Data = m.Data
		if _, err := c.Update(ctx, next, ""); err != nil {
			return fmt.Errorf("publish cluster: %w", err)
		}
	}
	if cluster.Broker == "" {
		return nil
	}
	s := jointoken.BrokerSecret(cluster.Broker)
	oldSecret, ok := control.Get[*corev1.Secret](c, kube.Secret, s.Namespace, s.Name)
	switch {
	case !ok:
		if _, err := c.Create(ctx, s); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("publish broker: %w", err)
		}
	case !equality.Semantic.DeepEqual(oldSecret.Data, s.Data):
		next := oldSecret.DeepCopy()
		next.Data = s.Data
		if _, err := c.Update(ctx, next, ""); err != nil {
			return fmt.Errorf("publish broker: %w", err)
		}
	}
	return nil
}
