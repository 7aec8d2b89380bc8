package control

import (
	"maps"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// Orphans indexes the objects of a kind that have no controller: a search for something to adopt need not read a whole
// namespace. The loop calls Saw for every change of the kind.
type Orphans struct {
	reader Reader
	kind   kube.GVK

	mu sync.Mutex
	// by is by namespace and name. It has the namespaces that were searched, also those without orphans: where a controller has no owners,
	// others' objects cost it nothing. Guarded by mu.
	by map[string]map[string]kube.Object
}

// NewOrphans returns the Orphans among a kind's objects.
func NewOrphans(r Reader, kind kube.GVK) *Orphans {
	return &Orphans{reader: r, kind: kind, by: map[string]map[string]kube.Object{}}
}

// Saw takes a change into the index.
func (o *Orphans) Saw(c Change) {
	obj := c.Object()
	o.mu.Lock()
	defer o.mu.Unlock()
	in := o.by[obj.GetNamespace()]
	switch {
	case in == nil:
	case c.New == nil || !adoptable(c.New):
		delete(in, obj.GetName())
	default:
		in[obj.GetName()] = c.New
	}
}

// In returns the orphans of a namespace, as the cache has them or had them a moment ago, in no order.
func (o *Orphans) In(namespace string) []kube.Object {
	o.mu.Lock()
	defer o.mu.Unlock()
	in := o.by[namespace]
	if in == nil {
		in = o.search(namespace)
	}
	out := make([]kube.Object, 0, len(in))
	for _, obj := range in {
		out = append(out, obj)
	}
	return out
}

// search begins to keep the orphans of a namespace, and ends it for those namespaces that are gone. Changes before it that Saw has still to be
// called for do no harm: the last of them is what search has found. o.mu is held.
func (o *Orphans) search(namespace string) map[string]kube.Object {
	maps.DeleteFunc(o.by, func(ns string, _ map[string]kube.Object) bool {
		_, ok := o.reader.Get(kube.Namespace, "", ns)
		return !ok
	})
	in := map[string]kube.Object{}
	for _, obj := range o.reader.List(o.kind, namespace) {
		if adoptable(obj) {
			in[obj.GetName()] = obj
		}
	}
	o.by[namespace] = in
	return in
}

func adoptable(obj kube.Object) bool {
	return obj.GetDeletionTimestamp() == nil && metav1.GetControllerOfNoCopy(obj) == nil
}
