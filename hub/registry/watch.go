package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/sqlstore"
)

// Watch follows the objects that t and opts select. It begins with the revision asked for, or (resourceVersion "" or "0",
// or sendInitialEvents) with an ADDED for each object that exists now. A revision that is no longer kept shows in the
// first Next, as Kubernetes sends it: on an open stream.
func (r *Registry) Watch(ctx context.Context, t resource.Target, opts *metav1.ListOptions) (Watch, error) {
	if opts == nil {
		opts = &metav1.ListOptions{}
	}
	if _, err := served(t, "watch"); err != nil {
		return nil, err
	}
	if err := checkListOptions(opts, true); err != nil {
		return nil, err
	}
	sel, err := r.selectionOf(t, opts)
	if err != nil {
		return nil, err
	}
	from, err := objects.ParseRevision(opts.ResourceVersion)
	if err != nil {
		return nil, badRevision(opts.ResourceVersion, err)
	}
	now, err := r.store.Revision(ctx)
	if err != nil {
		return nil, storeFailure(sel.kind, "watch", err)
	}
	if from > now {
		return nil, tooLarge(from, now)
	}
	w := &watcher{r: r, sel: sel, bookmarks: opts.AllowWatchBookmarks}
	initial := from == 0
	if opts.SendInitialEvents != nil {
		initial = *opts.SendInitialEvents
		if !initial && from == 0 {
			from = now
		}
	}
	if initial {
		if from, err = w.begin(ctx, opts.SendInitialEvents != nil); err != nil {
			return nil, err
		}
	}
	w.sent = from
	if w.src, err = r.store.Watch(ctx, sel.prefix, from); err != nil {
		w.failed = watchFailure(sel, from, err)
		return w, nil
	}
	w.due = time.Now().Add(r.bookmark)
	r.watches.add(w)
	if r.kindFor(sel.kind.GVK) == nil { // gone before it was among those that end with their kind
		w.Close()
		return nil, notServed(sel.kind)
	}
	return w, nil
}

// watcher is one watch of one client. It is owned by the goroutine that calls Next; only end may be called from others.
type watcher struct {
	r         *Registry
	sel       *selection
	src       sqlstore.Watcher // nil when failed is set from the start
	gone      atomic.Bool      // src was closed because the kind is no longer served
	first     []WatchEvent     // for the first Next; nil afterwards
	initial   initial          // what follows first
	failed    error
	bookmarks bool
	sent      sqlstore.Revision // the client has every event up to here
	due       time.Time         // of the next bookmark, if there is progress to report
}

// Next implements Watch.
func (w *watcher) Next(ctx context.Context) ([]WatchEvent, error) {
	if len(w.first) > 0 {
		first := w.first
		w.first = nil
		return first, nil
	}
	if events, err := w.initial.next(ctx); len(events) > 0 {
		return events, nil
	} else if err != nil {
		w.failed = err
	}
	if w.failed != nil {
		return nil, w.failed
	}
	for {
		events, err := w.wait(ctx)
		switch {
		case err == nil:
			if out := w.translate(ctx, events); len(out) > 0 {
				return out, nil
			}
			if w.failed != nil {
				return nil, w.failed
			}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			if w.failed = watchFailure(w.sel, w.sent, err); w.gone.Load() {
				w.failed = notServed(w.sel.kind)
			}
			return nil, w.failed
		}
		if m, ok := w.bookmark(); ok {
			return []WatchEvent{m}, nil
		}
	}
}

// wait returns the next events, or context.DeadlineExceeded when a bookmark is due.
func (w *watcher) wait(ctx context.Context) ([]sqlstore.Event, error) {
	if !w.bookmarks {
		return w.src.Next(ctx)
	}
	ctx, cancel := context.WithDeadline(ctx, w.due)
	defer cancel()
	return w.src.Next(ctx)
}

// bookmark returns an event with the revision that the log has reached, when one is due and the client does not have it. A log
// without commits costs nothing.
func (w *watcher) bookmark() (WatchEvent, bool) {
	if !w.bookmarks || time.Now().Before(w.due) {
		return WatchEvent{}, false
	}
	w.due = time.Now().Add(w.r.bookmark)
	rev := w.src.Revision()
	if rev <= w.sent {
		return WatchEvent{}, false
	}
	w.sent = rev
	return w.mark(rev, false), true
}

// mark returns a bookmark: an object of the kind with nothing but a resourceVersion.
func (w *watcher) mark(rev sqlstore.Revision, endOfList bool) WatchEvent {
	type meta struct {
		ResourceVersion   string            `json:"resourceVersion"`
		CreationTimestamp *metav1.Time      `json:"creationTimestamp"`
		Annotations       map[string]string `json:"annotations,omitempty"`
	}
	obj := struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Metadata   meta   `json:"metadata"`
	}{w.sel.kind.GVK.Kind, w.sel.kind.GVK.GroupVersion().String(), meta{ResourceVersion: objects.FormatRevision(rev)}}
	if endOfList {
		obj.Metadata.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	b, err := json.Marshal(obj)
	if err != nil {
		panic(err) // strings only
	}
	return WatchEvent{Type: watch.Bookmark, JSON: b}
}

// translate turns changes of the log into events of the selection.
func (w *watcher) translate(ctx context.Context, events []sqlstore.Event) []WatchEvent {
	out := make([]WatchEvent, 0, len(events))
	for _, ev := range events {
		if !w.sel.hasKey(ev.Key) {
			continue
		}
		we, key, ok := w.meaning(ev)
		if !ok {
			continue
		}
		b, err := w.r.view(ctx, w.sel.kind, key, ev.Rev, we.JSON)
		if err != nil { // the client must not believe that it has seen the change
			w.r.log.Error("stored object cannot be shown to a watch, which ends", "key", ev.Key, "revision", int64(ev.Rev), "error", err)
			w.failed = apierrors.NewInternalError(err)
			return out
		}
		we.JSON = b
		out = append(out, we)
	}
	if len(out) > 0 {
		w.sent = events[len(events)-1].Rev
	}
	return out
}

// meaning returns what an event means for the selection: an object that enters it is ADDED, one that leaves it DELETED, with the
// state that was selected.
func (w *watcher) meaning(ev sqlstore.Event) (we WatchEvent, key string, ok bool) {
	was := ev.Created != ev.Rev && ev.Prev != nil && w.selected(ev.Key, ev.Prev)
	switch {
	case ev.Deleted && !was:
		return we, "", false
	case ev.Deleted:
		last := ev.Value
		if last == nil {
			last = objects.WithRevision(ev.Prev, ev.Rev)
		}
		return WatchEvent{Type: watch.Deleted, JSON: last}, ev.Key, true
	}
	is := w.r.selectsShared(w.sel, ev.Key, ev.Rev, ev.Value)
	switch {
	case is && was:
		return WatchEvent{Type: watch.Modified, JSON: ev.Value}, ev.Key, true
	case is:
		return WatchEvent{Type: watch.Added, JSON: ev.Value}, ev.Key, true
	case was:
		return WatchEvent{Type: watch.Deleted, JSON: objects.WithRevision(ev.Prev, ev.Rev)}, "", true
	}
	return we, "", false
}

// selected reports whether the state before a change was selected.
func (w *watcher) selected(key string, prev []byte) bool {
	if w.sel.plain() {
		return true
	}
	rev := objects.StoredRevision(prev)
	return w.r.selectsShared(w.sel, key, rev, prev)
}

// selectsShared is selects for watches: what it has to decode it keeps for other watchers of the same revision.
func (r *Registry) selectsShared(s *selection, key string, rev sqlstore.Revision, raw []byte) bool {
	if s.plain() {
		return true
	}
	typed := r.objects.Typed
	if s.byMetadata() {
		typed = r.objects.Metadata
	}
	obj, err := typed(s.kind.Stored(), key, rev, raw)
	return err == nil && s.matches(obj)
}

// Close implements Watch.
func (w *watcher) Close() {
	if w.src != nil {
		w.r.watches.remove(w)
		w.src.Close()
	}
}

// end makes Next return that the kind is no longer served. It may be called from any goroutine while the watch is open.
func (w *watcher) end() {
	w.gone.Store(true)
	w.src.Close()
}

// watchFailure returns the Status for a failed watch: 410 when the client has to list again because its revision is compacted.
func watchFailure(sel *selection, from sqlstore.Revision, err error) error {
	var compacted *sqlstore.CompactedError
	if errors.As(err, &compacted) {
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", from, compacted.Oldest))
	}
	return storeFailure(sel.kind, "watch", err)
}
