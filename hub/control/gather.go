package control

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// A reconcile that reads all of an object's pods, and is called for each change of one, does four times the work for twice the pods:
// each pod of a rollout changes half a dozen times. So changes are gathered after a reconcile for gatherEach of the pods that it has
// read, maxGather at most. Few pods gather nothing, and a change of the object's own spec does not wait.
const (
	gatherFrom = 50 // pods
	gatherEach = time.Millisecond
	maxGather  = time.Second
)

// Gatherer remembers the last reconcile of each object of a kind. The zero value is ready to use; its methods may be called from several
// workers.
type Gatherer struct {
	mu   sync.Mutex
	last map[Key]reconciled // of those that had many pods; guarded by mu
}

// reconciled is one reconcile of an object.
type reconciled struct {
	uid        types.UID
	generation int64
	at         time.Time
	pods       int
}

// Wait returns how long an object's changes are to be gathered for; 0: reconcile it now.
func (g *Gatherer) Wait(obj kube.Object, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.last[KeyOf(obj)]
	if !ok || l.uid != obj.GetUID() || l.generation != obj.GetGeneration() || obj.GetDeletionTimestamp() != nil {
		return 0
	}
	return max(0, min(maxGather, time.Duration(l.pods)*gatherEach)-now.Sub(l.at))
}

// Done records a reconcile of an object that has read so many pods.
func (g *Gatherer) Done(obj kube.Object, pods int, now time.Time) {
	if pods < gatherFrom {
		g.Forget(KeyOf(obj))
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		g.last = map[Key]reconciled{}
	}
	g.last[KeyOf(obj)] = reconciled{obj.GetUID(), obj.GetGeneration(), now, pods}
}

// Forget drops what is kept of an object that is gone.
func (g *Gatherer) Forget(key Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.last, key)
}
