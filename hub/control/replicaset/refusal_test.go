package replicaset

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// TestRefusedPodsAreNotAskedForAtOnceAgain covers owners that change often: there is room for ten pods of a thousand. Each of
// the ten changes often, and each change brings the ReplicaSet up; still it asks for more now and then only. A change of its
// spec is another matter.
func TestRefusedPodsAreNotAskedForAtOnceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, webSet(1000))
		var made, refused atomic.Int32
		c.Refuse = func(verb string, o kube.Object, _ string) error {
			if _, pod := o.(*corev1.Pod); !pod || verb != "create" {
				return nil
			}
			if made.Load() >= 10 {
				refused.Add(1)
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("no room"))
			}
			made.Add(1)
			return nil
		}
		start(t, c)
		time.Sleep(time.Second / 2)
		synctest.Wait()
		if n := refused.Load(); n == 0 || n > 32 {
			t.Errorf("%d refusals at the beginning", n)
		}
		refused.Store(0)
		for range 600 { // ten minutes
			for _, p := range pods(c) {
				up := p.DeepCopy()
				up.Status.Message += "."
				if _, err := c.Update(t.Context(), up, "status"); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if n := refused.Load(); n < 5 || n > 30 {
			t.Errorf("%d refusals in ten minutes of 6,000 changes", n)
		}
		if conds := stored(t, c).Status.Conditions; len(conds) != 1 || conds[0].Reason != "FailedCreate" {
			t.Errorf("conditions %+v", conds)
		}
		setReplicas(t, c, 10)
		synctest.Wait()
		if conds := stored(t, c).Status.Conditions; len(conds) != 0 {
			t.Errorf("scaled down, conditions %+v", conds)
		}
		made.Store(0)
		setReplicas(t, c, 15)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := len(pods(c)); n != 15 {
			t.Errorf("scaled to 15 there are %d pods", n)
		}
	})
}
