package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// share is what one node has in a round.
type share struct {
	q       *queue
	job     *job
	reports int
	bytes   int // of the reports
	writes  []control.Write
	alone   bool // must not share a transaction
	left    []leftOut
}

// gather takes the shares of the next transaction, in turn, and moves the queues that got one to the end of the turn. wait
// is when the first of the others may have one.
func (i *intake) gather(now time.Time) (shares []share, wait time.Time) {
	i.mu.Lock()
	turn := slices.Clone(i.turn)
	i.mu.Unlock()
	taken, bytes := 0, 0
	objects := map[string]bool{}
	for _, q := range turn {
		if taken >= maxWrites || bytes >= maxTxBytes {
			break
		}
		j := i.current(q)
		if j == nil || q.trying {
			continue
		}
		if now.Before(j.notBefore) {
			wait = earliest(wait, j.notBefore)
			continue
		}
		s, later := i.share(now, q, j, objects)
		if s.reports == 0 && !s.alone && j.at < len(j.batch.Puts) {
			wait = earliest(wait, later)
			continue
		}
		taken += len(s.writes)
		bytes += s.bytes
		shares = append(shares, s)
		i.last(q)
	}
	return shares, wait
}

// share plans the next reports of one node. One that cannot even be planned is left to the method one.
func (i *intake) share(now time.Time, q *queue, j *job, objects map[string]bool) (s share, later time.Time) {
	err := contain.Do(i.log, "dispatch/plan", j.node, func() error {
		s, later = i.plans(now, q, j, objects)
		return nil
	})
	if err != nil {
		q.suspect = now.Add(suspectFor)
		return share{q: q, job: j, alone: true}, now
	}
	return s, later
}

// plans returns as many of the next reports as the node's budget allows, up to one that needs what another in the transaction
// changes. later is when the budget allows the first, if it does not now.
func (i *intake) plans(now time.Time, q *queue, j *job, objects map[string]bool) (s share, later time.Time) {
	s = share{q: q, job: j}
	for k := j.at; k < len(j.batch.Puts) && s.reports < maxShare && s.bytes < maxTxBytes/4; k++ {
		r, first := j.report(k), k == j.at
		paid := first && j.tries > 0
		if t := q.when(now, r.put); !paid && t.After(now) {
			return s, t
		}
		if !paid && r.put.Kind == wire.KindEvent && q.events.when(now, eventsLimit, 1).After(now) {
			q.pay(now, r.put)
			s.left = append(s.left, leftOut{r.put, []string{"the event, like others: a node may report one a second, and six hundred at once"}})
			s.reports++
			continue
		}
		p := i.plan(r)
		alone := p.alone || now.Before(q.suspect) || now.Before(i.slow)
		if !first && alone || slices.ContainsFunc(p.writes, func(w control.Write) bool { return objects[key(w)] }) {
			return s, now.Add(time.Millisecond) // the other write of the object has to be read first
		}
		if !paid {
			q.pay(now, r.put)
		}
		if alone {
			s.alone = true
			return s, now
		}
		for _, w := range p.writes {
			objects[key(w)] = true
		}
		if len(p.left) > 0 {
			s.left = append(s.left, leftOut{r.put, p.left})
		}
		s.writes = append(s.writes, p.writes...)
		s.reports++
		s.bytes += len(r.put.Data)
	}
	return s, now
}

func (i *intake) writeAll(ctx context.Context, p changes) error {
	for _, w := range p.writes {
		if err := i.write(ctx, w, p.alone); err != nil {
			return err
		}
	}
	return nil
}

// verdict decides what becomes of a report that could not be written: tried again after pause, left out with a reason, or,
// when neither, dropped because its object is gone.
func (i *intake) verdict(j *job, err error) (again bool, pause time.Duration, why string) {
	var panicked *contain.Panic
	switch {
	case err == nil:
		return false, 0, ""
	case errors.As(err, &panicked):
		return false, 0, "a fault of the hub"
	case apierrors.IsNotFound(err), apierrors.IsGone(err):
		return false, 0, ""
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		if j.tries > intakeTries {
			return false, 0, "it keeps losing against other writers"
		}
		return true, 0, "" // the next round reads what the other writer wrote
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), apierrors.IsRequestEntityTooLargeError(err), apierrors.IsMethodNotSupported(err):
		return false, 0, "the API refuses it"
	case j.eventHeldUp(err):
		return false, 0, "a webhook does not admit it"
	case j.tries >= storeTries && i.written > j.since && !(storeFull(err) && j.report(j.at).put.Kind != wire.KindEvent):
		return false, 0, "it cannot be written, though others can"
	}
	// The store accepts nothing: the report waits, because the node would not send it again once it is answered.
	return true, min(storeRetry<<min(j.tries-1, 10), storeRetryMax), ""
}

// write makes one change. A pod with finalizers is deleted by the API's rules, not at once.
func (i *intake) write(ctx context.Context, w control.Write, alone bool) error {
	if w.Delete && alone {
		zero := int64(0)
		uid := w.Old.GetUID()
		return i.client.Delete(ctx, kube.Pod, w.Old.GetNamespace(), w.Old.GetName(), metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid},
		})
	}
	return i.client.Commit(ctx, []control.Write{w})
}

// key names the object that a write changes.
func key(w control.Write) string {
	return fmt.Sprintf("%T/%s/%s", w.Object, w.Object.GetNamespace(), w.Object.GetName())
}
