package endpoints

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
)

// room is a slice of a group, and what it is to hold.
type room struct {
	old, new *discoveryv1.EndpointSlice // old: shared, nil for a new slice; new: shares all but endpoints and labels with old
	changed  bool                       // it has to be written anyway
}

// planGroup returns the writes for the slices of one group. taken has the names in use; planGroup adds to it.
func planGroup(svc *corev1.Service, existing []*discoveryv1.EndpointSlice, g *group, taken map[string]bool) []control.Write {
	rooms, left := keep(svc, existing, g)
	rooms = fill(rooms, left, func() *room { return &room{new: newSlice(svc, g, taken)} })
	var writes []control.Write
	held := slices.ContainsFunc(rooms, func(r *room) bool { return len(r.new.Endpoints) > 0 })
	for _, r := range rooms {
		if len(r.new.Endpoints) == 0 && r.old != nil {
			if held {
				writes = append(writes, control.Write{Old: r.old, Delete: true})
				continue
			}
			held = true // one stays, empty
		}
		if r.new.Endpoints == nil {
			r.new.Endpoints = []discoveryv1.Endpoint{} // in JSON [] and not null, which clients do not expect
		}
		switch {
		case r.old == nil:
			writes = append(writes, control.Write{Object: r.new})
		case r.changed:
			writes = append(writes, control.Write{Object: r.new.DeepCopy(), Old: r.old})
		}
	}
	return writes
}

// keep returns the existing slices with those of their endpoints that stay, as they are now, and the endpoints that no slice has yet, in
// the order of the pods.
func keep(svc *corev1.Service, existing []*discoveryv1.EndpointSlice, g *group) (rooms []*room, left []discoveryv1.Endpoint) {
	wanted := make(map[types.UID]discoveryv1.Endpoint, len(g.endpoints))
	for _, e := range g.endpoints {
		wanted[e.TargetRef.UID] = e
	}
	for _, s := range existing {
		n := *s
		r := &room{old: s, new: &n}
		n.Endpoints = make([]discoveryv1.Endpoint, 0, len(s.Endpoints))
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if e.TargetRef == nil {
				r.changed = true
				continue
			}
			w, ok := wanted[e.TargetRef.UID]
			if !ok {
				r.changed = true
				continue
			}
			n.Endpoints = append(n.Endpoints, w)
			delete(wanted, e.TargetRef.UID)
			r.changed = r.changed || !equal(e, &w)
		}
		label(svc, &n)
		r.changed = r.changed || !maps.Equal(s.Labels, n.Labels)
		rooms = append(rooms, r)
	}
	for _, e := range g.endpoints {
		if _, ok := wanted[e.TargetRef.UID]; ok {
			left = append(left, e)
		}
	}
	return rooms, left
}

// fill places endpoints by Kubernetes' rules, so that few slices are written: first in slices that are written anyway, the
// fullest first; then, if all that is left fits one, in the slice with the least room for it; then in empty and in new slices.
func fill(rooms []*room, left []discoveryv1.Endpoint, more func() *room) []*room {
	put := func(r *room) {
		n := min(len(left), perSlice-len(r.new.Endpoints))
		r.new.Endpoints = append(r.new.Endpoints, left[:n]...)
		r.changed, left = true, left[n:]
	}
	sorted := slices.Clone(rooms)
	slices.SortStableFunc(sorted, func(a, b *room) int { return cmp.Compare(len(b.new.Endpoints), len(a.new.Endpoints)) })
	for _, r := range sorted {
		if n := len(r.new.Endpoints); len(left) > 0 && r.changed && n > 0 && n < perSlice {
			put(r)
		}
	}
	for len(left) > 0 {
		i := slices.IndexFunc(sorted, func(r *room) bool { return !r.changed && len(r.new.Endpoints)+len(left) <= perSlice })
		if i < 0 {
			i = slices.IndexFunc(sorted, func(r *room) bool { return len(r.new.Endpoints) == 0 })
		}
		if i < 0 {
			rooms, sorted = append(rooms, more()), append(sorted, nil)
			i = len(sorted) - 1
			sorted[i] = rooms[len(rooms)-1]
		}
		put(sorted[i])
	}
	if len(rooms) == 0 {
		rooms = append(rooms, more())
	}
	return rooms
}
