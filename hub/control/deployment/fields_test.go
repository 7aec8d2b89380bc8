package deployment

import (
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// TestMinReadySeconds checks that a Deployment's minReadySeconds is its ReplicaSet's, from the beginning and after a change.
func TestMinReadySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := web(2, "v1")
		d.Spec.MinReadySeconds = 7
		w := newWorld(t, d, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		for _, want := range []int32{7, 9} {
			w.edit(func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = want })
			w.settle()
			w.turn()
			sets := w.c.List(kube.ReplicaSet, "")
			if len(sets) != 1 || sets[0].(*appsv1.ReplicaSet).Spec.MinReadySeconds != want {
				t.Errorf("%d ReplicaSets, the first: %+v", len(sets), sets[0].(*appsv1.ReplicaSet).Spec)
			}
		}
	})
}
