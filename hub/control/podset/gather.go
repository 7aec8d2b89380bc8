package podset

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// A reconcile reads all pods of its owner, and each pod of a rollout changes half a dozen times: with a reconcile for each change,
// twice the pods would cost four times the work. So changes are gathered after a reconcile for gatherEach of the owner's pods, maxGather at
// most. Owners of few pods gather nothing, and a change of an owner's own spec does not wait.
const (
	gatherFrom = 50 // pods
	gatherEach = time.Millisecond
	maxGather  = time.Second
)

// gathering is what is remembered of the last reconcile of each owner.
type gathering struct {
	mu   sync.Mutex
	last map[control.Key]reconciled // guarded by mu
}

// reconciled is one reconcile of an owner.
type reconciled struct {
	uid        types.UID
	generation int64
	at         time.Time
	pods       int
}

// Gather returns how long an owner's changes are to be gathered for; 0: reconcile it now.
func (p *Pods[O]) Gather(owner O, now time.Time) time.Duration {
	p.gathered.mu.Lock()
	defer p.gathered.mu.Unlock()
	l := p.gathered.last[control.KeyOf(owner)]
	if l.pods < gatherFrom || l.uid != owner.GetUID() || l.generation != owner.GetGeneration() || owner.GetDeletionTimestamp() != nil {
		return 0
	}
	return max(0, min(maxGather, time.Duration(l.pods)*gatherEach)-now.Sub(l.at))
}

// note records a reconcile of an owner with so many pods.
func (g *gathering) note(owner kube.Object, pods int, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if pods < gatherFrom {
		delete(g.last, control.KeyOf(owner))
		return
	}
	g.last[control.KeyOf(owner)] = reconciled{owner.GetUID(), owner.GetGeneration(), now, pods}
}

func (g *gathering) forget(owner control.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.last, owner)
}
