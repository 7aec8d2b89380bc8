package podset

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// An owner of many pods is reconciled once for changes that come close together; its own change, and its end, do not wait.
func TestChangesOfManyPodsAreGathered(t *testing.T) {
	for _, tt := range []struct {
		pods int
		want time.Duration
	}{{3, 0}, {gatherFrom, gatherFrom * gatherEach}, {200, 200 * gatherEach}, {2000, maxGather}} {
		of := owner("rs", "web")
		objs := []kube.Object{of}
		for i := range tt.pods {
			objs = append(objs, pod(fmt.Sprintf("p%04d", i), "web", of))
		}
		in(t, objs, func(w *world) {
			of := w.owner("rs")
			if wait := w.pods.Gather(of, time.Now()); wait != 0 {
				t.Errorf("%d pods: waits %v before anything was done", tt.pods, wait)
			}
			w.claim(of)
			if wait := w.pods.Gather(of, time.Now()); wait != tt.want {
				t.Errorf("%d pods: gathers for %v, want %v", tt.pods, wait, tt.want)
			}
			if wait := w.pods.Gather(of, time.Now().Add(tt.want)); wait != 0 {
				t.Errorf("%d pods: waits another %v", tt.pods, wait)
			}
			changed, again, deleted := of.DeepCopy(), of.DeepCopy(), of.DeepCopy()
			changed.Generation++
			again.UID = "another"
			now := metav1.Now()
			deleted.DeletionTimestamp = &now
			for _, o := range []*appsv1.ReplicaSet{changed, again, deleted} {
				if w.pods.Gather(o, now.Time) != 0 {
					t.Errorf("%d pods: an owner waits that has changed itself: %v", tt.pods, o.ObjectMeta)
				}
			}
		})
	}
}
