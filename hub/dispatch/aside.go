package dispatch

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/internal/wire"
)

// A store that is full takes no report that makes it grow by much, and a webhook that is down admits none. Such a report of a pod or a node is set aside: those behind it
// go on, and it is tried again when the store has room. The node would not send it again by itself. A later report of the same
// object replaces it.

const (
	// asideEvery is how often reports that are set aside are tried without a signal: a namespace that
	// has used its share of the store gives none.
	asideEvery = 2 * time.Minute
	// maxAside bounds the bytes of all reports that are set aside, maxAsideOf those of one device. Beyond, reports wait in their batch.
	maxAside   = 16 << 20
	maxAsideOf = 1 << 20
)

// storeFull reports whether the store refused a write because it, or a namespace, may not grow.
func storeFull(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code == http.StatusInsufficientStorage
}

// setAside keeps a report for later, or reports that there is no room for it. Events are never set aside: they wait, or are left out.
func (i *intake) setAside(now time.Time, q *queue, put *wire.Put) bool {
	if put.Kind != wire.KindPodStatus && put.Kind != wire.KindNodeStatus {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forgetAside(q, put.ID)
	if n := len(put.Data); q.asideBytes+n > maxAsideOf || i.asideBytes+n > maxAside {
		return false
	}
	if q.aside == nil {
		q.aside = map[wire.ID]wire.Put{}
	}
	q.aside[put.ID] = *put
	q.asideBytes += len(put.Data)
	i.asideBytes += len(put.Data)
	if i.asideAt.IsZero() {
		i.asideAt = now.Add(asideEvery)
	}
	return true
}

// forgetAside drops a report that was set aside. i.mu is held.
func (i *intake) forgetAside(q *queue, id wire.ID) {
	if old, ok := q.aside[id]; ok {
		delete(q.aside, id)
		q.asideBytes -= len(old.Data)
		i.asideBytes -= len(old.Data)
	}
}

// retryAside makes what is set aside be tried again at a time, if not before.
func (i *intake) retryAside(at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asideAt = earliest(i.asideAt, at)
}

// storeHasRoom makes what is set aside be tried again.
func (i *intake) storeHasRoom() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asideAt = time.Time{}
	i.asideDue = true
	i.signal()
}

// resume queues what is set aside when it is due: as a batch of its device that needs no answer. A device that has a batch
// in hand comes with the next round. It returns when the next time is, zero when nothing is set aside.
func (i *intake) resume(now time.Time) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.asideDue && (i.asideAt.IsZero() || now.Before(i.asideAt)) {
		return i.asideAt
	}
	i.asideDue, i.asideAt = false, time.Time{}
	for _, q := range i.queues {
		if len(q.aside) == 0 {
			continue
		}
		if q.job != nil {
			i.asideAt = earliest(i.asideAt, now.Add(time.Second))
			continue
		}
		puts := slices.Collect(maps.Values(q.aside))
		for k := range puts {
			i.forgetAside(q, puts[k].ID)
		}
		q.job = &job{device: q.device, node: q.asideNode, batch: &wire.Batch{Puts: puts}, done: func() {}, aside: true}
		i.turn = append(i.turn, q)
	}
	return i.asideAt
}

// putBack sets aside again what is left of a batch of such reports, when its device has sent another. i.mu is held.
func (i *intake) putBack(now time.Time, q *queue, j *job) {
	for k := j.at; k < len(j.batch.Puts); k++ {
		put := j.batch.Puts[k]
		q.aside[put.ID] = put
		q.asideBytes += len(put.Data)
		i.asideBytes += len(put.Data)
	}
	if i.asideAt.IsZero() {
		i.asideAt = now.Add(time.Second)
	}
}
