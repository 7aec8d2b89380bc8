package registry

import (
	"context"

	"k8s.io/apimachinery/pkg/watch"

	"petrel.dev/petrel/sqlstore"
)

// initial is what a watch begins with: the objects that exist, a portion at a time. The zero value has none.
type initial struct {
	list *ListResult // nil when nothing is left
	at   int         // items before it have been returned
	end  *WatchEvent // follows the last item; nil: nothing does
}

// begin lists what exists now, for the first events. list: the client asked for a bookmark where the list ends.
func (w *watcher) begin(ctx context.Context, list bool) (sqlstore.Revision, error) {
	page, open, err := w.r.page(ctx, w.sel, "", 0, 0)
	if err != nil {
		return 0, storeFailure(w.sel.kind, "watch", err)
	}
	w.initial.list = w.r.listed(w.sel.kind, page, open)
	if list && w.bookmarks {
		mark := w.mark(page.Rev, true)
		w.initial.end = &mark
	}
	w.first, err = w.initial.next(ctx) // what cannot be shown is better an answer than an event
	return page.Rev, err
}

// next returns the next events, none when all have been returned. After an error nothing is left.
func (i *initial) next(ctx context.Context) ([]WatchEvent, error) {
	if i.list == nil {
		return nil, nil
	}
	var events []WatchEvent
	if i.at < len(i.list.Items) {
		items, err := i.list.portion(ctx, i.at)
		if err != nil {
			*i = initial{}
			return nil, err
		}
		i.at += len(items)
		events = make([]WatchEvent, 0, len(items)+1)
		for _, b := range items {
			events = append(events, WatchEvent{Type: watch.Added, JSON: b})
		}
	}
	if i.at == len(i.list.Items) {
		if i.end != nil {
			events = append(events, *i.end)
		}
		*i = initial{}
	}
	return events, nil
}
