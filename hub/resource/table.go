package resource

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/capabilities"
)

// Table holds the served kinds. Readers never lock: a change swaps in a new copy.
type Table struct {
	mu   sync.Mutex // one writer at a time
	snap atomic.Pointer[snapshot]
}

type snapshot struct {
	kinds []*Kind // in the order in which they were added
	byGVK map[schema.GroupVersionKind]*Kind
}

// New returns the table of built-in kinds.
func New() *Table {
	// Who may run privileged containers is for policy to say; validation alone would refuse them for everybody.
	capabilities.Setup(true, 0)
	t := &Table{}
	if err := t.Add(builtin()...); err != nil {
		panic(err) // the declarations contradict each other, which TestTable would have shown
	}
	return t
}

// Add declares kinds, all of them or none. A kind or a plural that is declared already is an error.
func (t *Table) Add(kinds ...*Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Kind
	if s := t.snap.Load(); s != nil {
		all = slices.Clone(s.kinds)
	}
	s, err := index(append(all, kinds...))
	if err != nil {
		return err
	}
	t.snap.Store(s)
	return nil
}

// Remove takes a kind out of the table; removing an unknown one does nothing.
func (t *Table) Remove(gvk schema.GroupVersionKind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(t.snap.Load().kinds), func(k *Kind) bool { return k.GVK == gvk })
	s, err := index(kept)
	if err != nil {
		panic(err) // a subset of a consistent table is consistent
	}
	t.snap.Store(s)
}

// ByGVK finds a kind by its type.
func (t *Table) ByGVK(gvk schema.GroupVersionKind) (*Kind, bool) {
	k, ok := t.snap.Load().byGVK[gvk]
	return k, ok
}

// All returns every kind, in the order in which they were declared. The slice is shared: read-only.
func (t *Table) All() []*Kind { return t.snap.Load().kinds }

func index(kinds []*Kind) (*snapshot, error) {
	s := &snapshot{
		kinds: kinds,
		byGVK: make(map[schema.GroupVersionKind]*Kind, len(kinds)),
	}
	byResource := make(map[schema.GroupVersionResource]*Kind, len(kinds))
	for _, k := range kinds {
		if old, ok := s.byGVK[k.GVK]; ok {
			return nil, fmt.Errorf("kind %s is declared twice, as %s and as %s", k.GVK, old.Plural, k.Plural)
		}
		if k.Virtual() && (!slices.Equal(k.Verbs, []string{"create"}) || k.StoredAs != nil || len(k.Subresources) > 0) {
			return nil, fmt.Errorf("kind %s stores nothing, so create must be its only verb, and it can neither be a view nor have subresources", k.GVK)
		}
		gvr := k.GVR()
		if old, ok := byResource[gvr]; ok {
			return nil, fmt.Errorf("resource %s is declared twice, by %s and by %s", gvr, old.GVK, k.GVK)
		}
		s.byGVK[k.GVK], byResource[gvr] = k, k
	}
	return s, nil
}

// GVR is the kind's group, version and plural.
func (k *Kind) GVR() schema.GroupVersionResource { return k.GVK.GroupVersion().WithResource(k.Plural) }

// Resource is the kind's group and plural: how errors name it.
func (k *Kind) Resource() schema.GroupResource { return k.GVR().GroupResource() }

// Stored is the kind whose objects are in the store: itself, unless it is a view of another.
func (k *Kind) Stored() *Kind {
	if k.StoredAs != nil {
		return k.StoredAs
	}
	return k
}

// Key is where the store keeps an object: "/apps/deployments/NAMESPACE/NAME", "/core/nodes/NAME". The version is not
// part of it, so that objects outlive the version that they were written in.
func Key(k *Kind, namespace, name string) string { return Prefix(k, namespace) + name }

// Prefix is the common prefix of the keys of a namespace, or of all objects of the kind when namespace is empty. It ends
// with a slash.
func Prefix(k *Kind, namespace string) string {
	k = k.Stored()
	group := k.GVK.Group
	if group == "" {
		group = "core"
	}
	prefix := "/" + group + "/" + k.Plural + "/"
	if k.Namespaced && namespace != "" {
		prefix += namespace + "/"
	}
	return prefix
}

// NamesOf takes a key of the kind apart again; ok is false when it is another kind's.
func NamesOf(k *Kind, key string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, Prefix(k, ""))
	if !ok {
		return "", "", false
	}
	if !k.Namespaced {
		return "", rest, rest != "" && !strings.Contains(rest, "/")
	}
	namespace, name, ok = strings.Cut(rest, "/")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, "/")
}
