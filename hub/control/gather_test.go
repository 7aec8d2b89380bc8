package control

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An object with many pods is reconciled once for changes that come close together; its own change, and its end, do not wait.
func TestChangesOfManyPodsAreGathered(t *testing.T) {
	for _, tt := range []struct {
		pods int
		want time.Duration
	}{{3, 0}, {gatherFrom, gatherFrom * gatherEach}, {200, 200 * gatherEach}, {2000, maxGather}} {
		var g Gatherer
		of := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "1", Generation: 1}}
		now := metav1.Now()
		if wait := g.Wait(of, now.Time); wait != 0 {
			t.Errorf("%d pods: waits %v before anything was done", tt.pods, wait)
		}
		g.Done(of, tt.pods, now.Time)
		if wait := g.Wait(of, now.Time); wait != tt.want {
			t.Errorf("%d pods: gathers for %v, want %v", tt.pods, wait, tt.want)
		}
		if wait := g.Wait(of, now.Add(tt.want)); wait != 0 {
			t.Errorf("%d pods: waits another %v", tt.pods, wait)
		}
		changed, again, deleted := of.DeepCopy(), of.DeepCopy(), of.DeepCopy()
		changed.Generation++
		again.UID = "another"
		deleted.DeletionTimestamp = &now
		for _, o := range []*appsv1.ReplicaSet{changed, again, deleted} {
			if g.Wait(o, now.Time) != 0 {
				t.Errorf("%d pods: an owner waits that has changed itself: %v", tt.pods, o.ObjectMeta)
			}
		}
		g.Done(of, 1, now.Time)
		if len(g.last) > 0 {
			t.Errorf("%d pods: remembers one that has few by now", tt.pods)
		}
	}
}
