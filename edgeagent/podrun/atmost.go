package podrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/internal/contain"
)

// Bounds of one step of a pod's worker. What a step waits for may never come: a disk or file server that does not answer,
// a shim or containerd that hangs. Then the step is abandoned, an event of the pod gives the reason, and it is tried again later.
const (
	lookLimit   = 30 * time.Second // looking at the pod's containers
	stepLimit   = 2 * time.Minute  // sandbox, volumes, network, removal
	noticeLimit = 5 * time.Second  // how long an abandoned step may take to notice
)

// atMost runs one step in a goroutine of its own and returns its result, or an error when limit has passed or ctx has
// ended: then the step goes on alone, with its context ended, and what it returns is thrown away. As long as it does, the
// same step is not begun once more. A panic in it is an error of this pod. step must not touch the worker.
func atMost[T any](w *worker, ctx context.Context, limit time.Duration, what string, step func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	if w.stuck[what] {
		return none, fmt.Errorf("%s: an earlier try hangs still, in the kernel or a file system that does not answer", what)
	}
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done, abandoned, h := make(chan outcome), make(chan struct{}), w.handle
	go func() {
		var r outcome
		r.err = contain.Do(h.m.cfg.Log, "podrun/step", h.uid, func() (err error) {
			r.value, err = step(inner)
			return err
		})
		select {
		case done <- r:
		case <-abandoned:
			h.inbox.put(returned{what})
		}
	}()
	overdue := func(err error) error {
		if err != nil && ctx.Err() == nil && errors.Is(inner.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("%s has taken more than %s: %w", what, limit, err)
		}
		return err
	}
	select {
	case r := <-done:
		return r.value, overdue(r.err)
	case <-inner.Done():
	}
	notice := time.NewTimer(noticeLimit)
	defer notice.Stop()
	select {
	case r := <-done:
		return r.value, overdue(r.err)
	case <-notice.C:
		w.stuck[what] = true
		close(abandoned)
		return none, overdue(inner.Err())
	}
}

// returned is a step that was abandoned and has come back after all.
type returned struct{ what string }

func (r returned) apply(_ context.Context, w *worker) { delete(w.stuck, r.what) }

// try is atMost for a step that only fails or not.
func (w *worker) try(ctx context.Context, limit time.Duration, what string, step func(context.Context) error) error {
	_, err := atMost(w, ctx, limit, what, func(ctx context.Context) (struct{}, error) { return struct{}{}, step(ctx) })
	return err
}

// panicked makes a fault of this program in one pod's work that pod's own: an event records it, and the pod is left alone for a
// while, the longer the more often it happens.
func (w *worker) panicked(err error) time.Duration {
	w.faults++
	if pod := w.pod; pod != nil {
		_ = contain.Do(nil, "podrun/event", w.uid, func() error {
			w.m.events.Record(pod, nil, corev1.EventTypeWarning, "FailedSync", "Error syncing pod, skipping: %v", err)
			return nil
		})
	}
	return min(time.Second<<min(w.faults-1, 10), lifecycle.BackoffMax)
}
