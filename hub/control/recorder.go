package control

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// Events is what a controller needs to tell people what it did.
type Events interface {
	// Event records that reason (a CamelCase word) happened to obj; eventType is corev1.EventTypeNormal or
	// EventTypeWarning. It never blocks and never fails: an event that cannot be kept is lost.
	Event(obj kube.Object, eventType, reason, format string, args ...any)
}

// Recorder writes Events. The same event of the same object again raises the count of the stored one, at most once in
// repeatEvery, so that a loop that fails all day costs the disk little.
type Recorder struct {
	client Writer
	log    *slog.Logger

	mu     sync.Mutex
	known  map[eventKey]*eventEntry
	dirty  []*eventEntry // want to be written
	signal chan struct{}
}

const (
	repeatEvery = 10 * time.Second
	// Bounds: how many events may wait to be written, how many are remembered for counting, and how long.
	maxDirtyEvents = 1000
	maxKnownEvents = 4096
	knownEventFor  = 10 * time.Minute
	maxEventText   = 1024 // what validation of Events allows
)

type eventKey struct {
	component, eventType, reason, message string
	uid                                   types.UID
	kind, namespace, name                 string
}

type eventEntry struct {
	key     eventKey
	stored  *corev1.Event // as last written; nil before
	event   *corev1.Event // first sight of it
	repeats int32         // sightings since stored
	last    time.Time     // the last sighting
	written time.Time
	dirty   bool
}

// NewRecorder returns a Recorder; its Run writes the events.
func NewRecorder(client Writer, log *slog.Logger) *Recorder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{client: client, log: log, known: map[eventKey]*eventEntry{}, signal: make(chan struct{}, 1)}
}

// As returns the Events of one component ("deployment-controller").
func (r *Recorder) As(component string) Events { return componentEvents{r, component} }

type componentEvents struct {
	r         *Recorder
	component string
}

func (c componentEvents) Event(obj kube.Object, eventType, reason, format string, args ...any) {
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	if len(message) > maxEventText {
		message = message[:maxEventText-3] + "..."
	}
	c.r.record(c.component, obj, eventType, reason, message)
}

func (r *Recorder) record(component string, obj kube.Object, eventType, reason, message string) {
	ref := ReferenceTo(obj)
	key := eventKey{component: component, eventType: eventType, reason: reason, message: message,
		uid: ref.UID, kind: ref.Kind, namespace: ref.Namespace, name: ref.Name}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[key]
	if e == nil {
		if len(r.dirty) >= maxDirtyEvents {
			return
		}
		r.shrink(now)
		e = &eventEntry{key: key, event: newEvent(component, ref, eventType, reason, message, now)}
		r.known[key] = e
	}
	e.repeats++
	e.last = now
	if !e.dirty {
		e.dirty = true
		r.dirty = append(r.dirty, e)
		select {
		case r.signal <- struct{}{}:
		default:
		}
	}
}

// shrink forgets what has not been seen for long, and everything that is written when even that is not enough.
func (r *Recorder) shrink(now time.Time) {
	if len(r.known) < maxKnownEvents {
		return
	}
	for k, e := range r.known {
		if !e.dirty && now.Sub(e.last) > knownEventFor {
			delete(r.known, k)
		}
	}
	if len(r.known) < maxKnownEvents {
		return
	}
	for k, e := range r.known {
		if !e.dirty {
			delete(r.known, k)
		}
	}
}

// Run writes events until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		if next := r.flush(ctx); next > 0 {
			timer.Reset(next)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.signal:
		case <-timer.C:
		}
	}
}

// flush writes all that is due, and returns when the rest is (0: nothing is left).
func (r *Recorder) flush(ctx context.Context) (next time.Duration) {
	r.mu.Lock()
	work := r.dirty
	r.dirty = nil
	r.mu.Unlock()
	now := time.Now()
	var later []*eventEntry
	for _, e := range work {
		if wait := repeatEvery - now.Sub(e.written); !e.written.IsZero() && wait > 0 {
			later = append(later, e)
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		r.write(ctx, e, now)
	}
	r.mu.Lock()
	r.dirty = append(r.dirty, later...)
	r.mu.Unlock()
	return next
}

func (r *Recorder) write(ctx context.Context, e *eventEntry, now time.Time) {
	r.mu.Lock()
	e.dirty = false
	repeats, last, stored := e.repeats, e.last, e.stored
	e.repeats = 0
	e.written = now
	r.mu.Unlock()

	var out kube.Object
	var err error
	if stored != nil {
		ev := stored.DeepCopy()
		ev.ResourceVersion = ""
		ev.Count += repeats
		ev.LastTimestamp = metav1.NewTime(last)
		if out, err = r.client.Update(ctx, ev, ""); apierrors.IsNotFound(err) {
			stored = nil // it has expired
		}
	}
	if stored == nil {
		ev := e.event.DeepCopy()
		ev.Count = repeats
		ev.FirstTimestamp, ev.LastTimestamp = metav1.NewTime(last), metav1.NewTime(last)
		ev.Name = fmt.Sprintf("%s.%x", ev.InvolvedObject.Name, last.UnixNano())
		out, err = r.client.Create(ctx, ev)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.log.Debug("event not kept", "reason", e.key.reason, "object", e.key.namespace+"/"+e.key.name, "err", err)
		}
		return
	}
	if ev, ok := out.(*corev1.Event); ok {
		r.mu.Lock()
		e.stored = ev
		r.mu.Unlock()
	}
}

func newEvent(component string, ref corev1.ObjectReference, eventType, reason, message string, now time.Time) *corev1.Event {
	ns := ref.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	return &corev1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{Namespace: ns},
		InvolvedObject:      ref,
		Reason:              reason,
		Message:             message,
		Source:              corev1.EventSource{Component: component},
		FirstTimestamp:      metav1.NewTime(now),
		LastTimestamp:       metav1.NewTime(now),
		Type:                eventType,
		ReportingController: component,
	}
}
