package registry

import (
	"context"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// watches are those that are open, so that they can be ended when their kind is removed.
type watches struct {
	mu   sync.Mutex
	open map[kube.GVK]map[*watcher]struct{} // by kind as stored; guarded by mu
}

func (ws *watches) add(w *watcher) {
	gvk := w.sel.kind.GVK
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.open[gvk] == nil {
		ws.open[gvk] = map[*watcher]struct{}{}
	}
	ws.open[gvk][w] = struct{}{}
}

func (ws *watches) remove(w *watcher) {
	gvk := w.sel.kind.GVK
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.open[gvk], w)
	if len(ws.open[gvk]) == 0 {
		delete(ws.open, gvk)
	}
}

// end ends all watches of the kinds for which goes returns true.
func (ws *watches) end(goes func(kube.GVK) bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for gvk, open := range ws.open {
		if !goes(gvk) {
			continue
		}
		for w := range open {
			w.end()
		}
		delete(ws.open, gvk)
	}
}

// endWatches follows the kinds until ctx ends, and ends the watches of those that are gone, or have a new declaration: their
// clients begin again with the new one.
func (r *Registry) endWatches(ctx context.Context) {
	var last map[kube.GVK]*resource.Kind
	for all := range r.kinds.Changes(ctx) {
		now := make(map[kube.GVK]*resource.Kind, len(all))
		for _, k := range all {
			now[k.GVK] = k
		}
		r.watches.end(func(gvk kube.GVK) bool { return now[gvk] == nil || last[gvk] != nil && last[gvk] != now[gvk] })
		last = now
	}
}

// notServed returns the error for a kind that is gone, as upstream answers for a path that it does not know.
func notServed(k *resource.Kind) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", k.Resource(), "", "", 0, false)
}
