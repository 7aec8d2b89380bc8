package control

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// Events is what a controller needs to report to users what it did.
type Events interface {
	// Event records that reason (in CamelCase) happened to obj; eventType is corev1.EventTypeNormal or
	// EventTypeWarning. It never blocks and never fails: an event that cannot be kept is lost.
	Event(obj kube.Object, eventType, reason, format string, args ...any)
}

// Recorder writes Events. When the same event of the same object occurs again, the count of the stored one is raised, at most
// once in repeatEvery, so that a loop that fails all day costs the disk little.
type Recorder struct {
	client Writer       // set by NewRecorder, never nil
	log    *slog.Logger // never nil

	named int64 // the number in the last event's name, which only grows; owned by Run's goroutine

	mu     sync.Mutex
	known  map[eventKey]*eventEntry // at most maxKnownEvents, or maxDirtyEvents when all of them wait; guarded by mu
	dirty  []*eventEntry            // waiting to be written, at most maxDirtyEvents new ones; guarded by mu
	signal chan struct{}            // one token while dirty may hold something; set once, needs no lock
}

const (
	repeatEvery = 10 * time.Second
	// Bounds: how many events may wait to be written, how many are kept for counting, and for how long.
	maxDirtyEvents = 1000
	maxKnownEvents = 4096
	knownEventFor  = 10 * time.Minute
	maxEventText   = 1024 // what validation of Events allows
	perEventCommit = 100
)

// eventKey identifies an event: two occurrences that agree in all of it are counted in one object.
type eventKey struct {
	component, eventType, reason, message string
	uid                                   types.UID
	kind, namespace, name                 string
}

// eventEntry is one event with its count. Fields without another owner are guarded by Recorder.mu.
type eventEntry struct {
	key     eventKey
	stored  *corev1.Event // as last written, without resourceVersion; nil before. Owned by Run's goroutine
	event   *corev1.Event // its first occurrence; does not change
	repeats int32         // occurrences since it was stored
	last    time.Time     // the last occurrence
	written time.Time     // when it was last written; zero: never
	dirty   bool          // a member of Recorder.dirty
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

// shrink makes room in known: first by what has not occurred for knownEventFor, then by everything that is written. r.mu is
// held.
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

// flush writes all that is due, and returns how long until the rest is due (0: nothing is left).
func (r *Recorder) flush(ctx context.Context) (next time.Duration) {
	r.mu.Lock()
	work := r.dirty
	r.dirty = nil
	r.mu.Unlock()
	now := time.Now()
	var later, first []*eventEntry
	for _, e := range work {
		if wait := repeatEvery - now.Sub(e.written); !e.written.IsZero() && wait > 0 {
			later = append(later, e)
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		again := false
		err := contain.Do(r.log, recorderSite, e.key.String(), func() error {
			again = e.stored != nil && r.repeat(ctx, e, now)
			return nil
		})
		switch {
		case err != nil:
			r.drop(e)
		case !again:
			first = append(first, e)
		}
	}
	for chunk := range slices.Chunk(first, perEventCommit) {
		r.create(ctx, chunk, now)
	}
	r.mu.Lock()
	r.dirty = append(r.dirty, later...)
	r.mu.Unlock()
	return next
}

// recorderSite is where contained panics of the recorder count: each costs one event.
const recorderSite = "control/recorder"

// drop forgets an event that could not be written: the next occurrence begins a new one.
func (r *Recorder) drop(e *eventEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, e.key)
}

// String names the object that the event is about.
func (k eventKey) String() string { return k.kind + " " + k.namespace + "/" + k.name }

// take returns what is to be written of an entry, and marks it as written.
func (r *Recorder) take(e *eventEntry, now time.Time) (occurrences int32, last metav1.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	occurrences, last = e.repeats, metav1.NewTime(e.last)
	e.dirty, e.repeats, e.written = false, 0, now
	return occurrences, last
}

// repeat raises the count of a stored event. It reports whether the stored one still exists; otherwise a
// new one is needed.
func (r *Recorder) repeat(ctx context.Context, e *eventEntry, now time.Time) bool {
	ev := e.stored.DeepCopy()
	n, last := r.take(e, now)
	ev.Count += n
	ev.LastTimestamp = last
	if _, err := r.client.Update(ctx, ev, ""); apierrors.IsNotFound(err) {
		r.mu.Lock()
		e.repeats += n
		r.mu.Unlock()
		return false
	} else if err != nil {
		r.lost(ctx, ev, err)
		return true
	}
	e.stored = ev
	return true
}

// create writes new events in one transaction or, when one of them is refused, each by itself.
func (r *Recorder) create(ctx context.Context, entries []*eventEntry, now time.Time) {
	writes := make([]Write, 0, len(entries))
	made := make([]*eventEntry, 0, len(entries))
	for _, e := range entries {
		if contain.Do(r.log, recorderSite, e.key.String(), func() error { r.prepare(e, now); return nil }) != nil {
			r.drop(e)
			continue
		}
		made = append(made, e)
		writes = append(writes, Write{Object: e.stored})
	}
	if len(writes) > 1 && contain.Do(r.log, recorderSite+"/write", "batch", func() error { return r.client.Commit(ctx, writes) }) == nil {
		return
	}
	for _, e := range made {
		if err := contain.Do(r.log, recorderSite+"/write", e.key.String(), func() error {
			_, err := r.client.Create(ctx, e.stored)
			return err
		}); err != nil {
			r.lost(ctx, e.stored, err)
			e.stored = nil
		}
	}
}

// prepare sets stored to the Event that is to be created.
func (r *Recorder) prepare(e *eventEntry, now time.Time) {
	ev := e.event.DeepCopy()
	var at metav1.Time
	ev.Count, at = r.take(e, now)
	ev.FirstTimestamp, ev.LastTimestamp = at, at
	r.named = max(r.named+1, at.UnixNano()) // names are unique even where times are equal
	ev.Name = fmt.Sprintf("%s.%x", ev.InvolvedObject.Name, r.named)
	e.stored = ev
}

func (r *Recorder) lost(ctx context.Context, ev *corev1.Event, err error) {
	if ctx.Err() == nil {
		r.log.Debug("event not kept", "reason", ev.Reason, "object", ev.Namespace+"/"+ev.InvolvedObject.Name, "error", err)
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
