package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	maxWrites   = 256 // of one transaction
	intakeTries = 30  // of one write that loses races, 20 ms apart: the cache lags that little
	intakePause = 20 * time.Millisecond
	storeRetry  = time.Second
)

// job is a batch of one node's reports. done is called when all that may be taken of it is durable.
type job struct {
	node  string
	batch *wire.Batch
	done  func()
}

// intake writes what nodes report. All that waits goes into one transaction; when that fails, each write is tried alone,
// on the newest state.
type intake struct {
	client control.Client
	log    *slog.Logger

	mu     sync.Mutex
	jobs   []job
	events []*corev1.Event
	ready  chan struct{}
}

func newIntake(client control.Client, log *slog.Logger) *intake {
	return &intake{client: client, log: log, ready: make(chan struct{}, 1)}
}

func (i *intake) add(j job) {
	i.mu.Lock()
	i.jobs = append(i.jobs, j)
	i.mu.Unlock()
	i.signal()
}

func (i *intake) signal() {
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

// nodeEvent writes an Event about a Node.
func (i *intake) nodeEvent(node, reason, message string) {
	now := metav1.Now()
	e := &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: node + "." + randomHex(8)},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
		Reason:         reason, Message: message, Type: corev1.EventTypeWarning, Count: 1,
		FirstTimestamp: now, LastTimestamp: now, Source: corev1.EventSource{Component: "petrel-dispatch"},
	}
	if o, ok := i.client.Get(kube.Node, "", node); ok {
		e.InvolvedObject.UID = o.GetUID()
	}
	i.mu.Lock()
	if len(i.events) < maxWrites {
		i.events = append(i.events, e)
	}
	i.mu.Unlock()
	i.signal()
}

func (i *intake) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-i.ready:
		}
		i.mu.Lock()
		jobs, events := i.jobs, i.events
		i.jobs, i.events = nil, nil
		i.mu.Unlock()
		for _, e := range events {
			if _, err := i.client.Create(ctx, e); err != nil && ctx.Err() == nil {
				i.log.Warn("event not written", "reason", e.Reason, "node", e.InvolvedObject.Name, "error", err)
			}
		}
		for len(jobs) > 0 {
			n, count := 0, 0
			for n < len(jobs) && (n == 0 || count+len(jobs[n].batch.Puts) <= maxWrites) {
				count += len(jobs[n].batch.Puts)
				n++
			}
			i.commit(ctx, jobs[:n])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			for _, j := range jobs[:n] {
				j.done()
			}
			jobs = jobs[n:]
		}
	}
}

// report is one thing that a node says.
type report struct {
	node string
	put  *wire.Put
}

// commit writes all that the jobs say, together if possible.
func (i *intake) commit(ctx context.Context, jobs []job) {
	var reports []report
	var writes []control.Write
	objects := map[string]bool{}
	together := true
	for _, j := range jobs {
		for k := range j.batch.Puts {
			r := report{j.node, &j.batch.Puts[k]}
			reports = append(reports, r)
			p := i.plan(r)
			if p.alone {
				together = false
			}
			for _, w := range p.writes {
				key := fmt.Sprintf("%T/%s/%s", w.Object, w.Object.GetNamespace(), w.Object.GetName())
				together = together && !objects[key]
				objects[key] = true
				writes = append(writes, w)
			}
		}
	}
	if together && (len(writes) == 0 || i.client.Commit(ctx, writes) == nil) {
		return
	}
	for _, r := range reports {
		i.one(ctx, r)
	}
}

// one writes a report by itself, again and again until it is written or turns out to mean nothing.
func (i *intake) one(ctx context.Context, r report) {
	for try := 0; ctx.Err() == nil; try++ {
		p := i.plan(r)
		var err error
		for _, w := range p.writes {
			if err = i.write(ctx, w, p.alone); err != nil {
				break
			}
		}
		pause := intakePause
		switch {
		case err == nil:
			return
		case apierrors.IsNotFound(err), apierrors.IsGone(err):
			return
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
			if try >= intakeTries {
				i.log.Warn("report not taken: it keeps losing against other writers", "node", r.node, "kind", r.put.Kind, "name", r.put.Name)
				return
			}
		case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), apierrors.IsRequestEntityTooLargeError(err), apierrors.IsMethodNotSupported(err):
			i.log.Warn("report not taken", "node", r.node, "kind", r.put.Kind, "name", r.put.Name, "error", err)
			return
		default:
			i.log.Warn("report not written; trying again", "node", r.node, "kind", r.put.Kind, "error", err)
			pause = storeRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// write makes one change. A pod with finalizers is deleted by the API's rules, not out of hand.
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
