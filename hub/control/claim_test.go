package control_test

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// TestClaimAsksWhetherTheOwnerIsStillThere checks that the cache is behind, and what has happened to the owner meanwhile
// decides whether it gets the two pods that nobody owns. A pod that is given to an owner which is gone would be collected.
func TestClaimAsksWhetherTheOwnerIsStillThere(t *testing.T) {
	web := func() *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	}
	remove := func(c *controltest.Client) { c.Remove(kube.ReplicaSet, "default", "web") }
	for _, s := range []struct {
		name      string
		meanwhile func(c *controltest.Client)
		adopts    int
		conflict  bool
	}{
		{"nothing", func(*controltest.Client) {}, 2, false},
		{"it is gone", remove, 0, false},
		{"another of its name is there", func(c *controltest.Client) { remove(c); c.Put(web()) }, 0, true},
		{"it is being deleted", func(c *controltest.Client) {
			_ = c.Delete(context.Background(), kube.ReplicaSet, "default", "web", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)})
		}, 0, true},
	} {
		c := controltest.New(t, web())
		for _, name := range []string{"a", "b"} {
			c.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
		}
		c.Lag(true)
		s.meanwhile(c)
		owner, _ := c.Get(kube.ReplicaSet, "default", "web")
		mine, err := control.Claim(t.Context(), c, owner, kube.ReplicaSet, labels.Everything(), nil, c.List(kube.Pod, "default"))
		if len(mine) != s.adopts || apierrors.IsConflict(err) != s.conflict || err != nil && !s.conflict {
			t.Errorf("%s: %d of 2 are adopted, %v", s.name, len(mine), err)
		}
		owned := 0
		for _, p := range c.Stored(kube.Pod, "default") {
			owned += len(p.GetOwnerReferences())
		}
		if owned != s.adopts {
			t.Errorf("%s: %d of 2 have an owner", s.name, owned)
		}
	}
}
