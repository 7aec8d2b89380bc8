package deployment

import (
	"fmt"
	"math"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// TestLargestReplicas checks that numbers at the end of what the API's fields hold must not turn around. The ReplicaSet gets
// what was asked for; whether that many pods may be is for others to say.
func TestLargestReplicas(t *testing.T) {
	for _, surge := range []intstr.IntOrString{intstr.FromInt32(1), intstr.FromInt32(math.MaxInt32), intstr.FromString("100%")} {
		t.Run(surge.String(), func(t *testing.T) {
			d := web(3, "a")
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: ptr.To(intstr.FromInt32(0))}}
			m := &model{d: d}
			m.step()
			settle := func() {
				for range 6 {
					for _, s := range m.sets {
						s.ready, s.unready = s.ready+s.unready, 0
					}
					m.step()
				}
			}
			settle()
			d.Spec.Replicas = ptr.To[int32](math.MaxInt32)
			m.step()
			if n := *m.sets[0].rs.Spec.Replicas; n != math.MaxInt32 {
				t.Fatalf("scaled to %d", n)
			}
			// A new template meanwhile: old and new together are more than 32 bits hold.
			d.Spec.Template.Spec.Containers[0].Image = "b"
			m.step()
			m.step()
			for _, s := range m.sets {
				if n := *s.rs.Spec.Replicas; n < 0 {
					t.Errorf("a ReplicaSet of %d", n)
				}
			}
			for _, n := range []int32{d.Status.Replicas, d.Status.UnavailableReplicas, d.Status.AvailableReplicas} {
				if n < 0 {
					t.Errorf("status %+v", d.Status)
				}
			}
			r := newRollout(state{d: d, rss: []*appsv1.ReplicaSet{m.sets[0].rs, m.sets[len(m.sets)-1].rs}, now: time.Now(),
				dark: map[types.UID]int64{m.sets[0].rs.UID: math.MaxInt32}})
			if r.allDeferred() < 0 || r.oldLive() < 0 || r.goal() < 0 {
				t.Error(fmt.Sprint("deferred ", r.allDeferred(), ", live ", r.oldLive(), ", goal ", r.goal()))
			}
		})
	}
}
