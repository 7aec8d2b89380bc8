package fieldmanager

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"petrel.dev/petrel/hub/resource"
)

const (
	// typesIdle is how long a description stays after its last use: as long as a person or a program that applies goes on with it.
	typesIdle = time.Minute
	// maxTypes bounds how many descriptions are kept; the largest of upstream's has 200 KB.
	maxTypes = 64
)

// typeCache is the managedfields.TypeConverter of all kinds. Descriptions are built on first use and dropped after typesIdle.
type typeCache struct {
	kinds     Kinds
	described Types // nil: none

	mu     sync.Mutex
	kept   map[schema.GroupVersionKind]*description // guarded by mu
	expiry *time.Timer                              // runs while kept is not empty; guarded by mu
}

type description struct {
	of   *resource.Kind // nil for a type that is no kind; a kind that is declared again is another one
	conv managedfields.TypeConverter
	used time.Time
}

var _ managedfields.TypeConverter = (*typeCache)(nil)

func newTypeCache(kinds Kinds, described Types) *typeCache {
	return &typeCache{kinds: kinds, described: described, kept: map[schema.GroupVersionKind]*description{}}
}

// TypeConverter returns the description of all kinds, for others that merge objects as an apply does. Descriptions of single kinds are
// built on first use and dropped when they are not used. described may be nil, as for New.
func TypeConverter(kinds Kinds, described Types) managedfields.TypeConverter {
	return newTypeCache(kinds, described)
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t *typeCache) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	conv, err := t.of(obj.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	return conv.ObjectToTyped(obj, opts...)
}

// TypedToObject implements managedfields.TypeConverter: a value has its kind in itself.
func (*typeCache) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	return managedfields.NewDeducedTypeConverter().TypedToObject(v)
}

// of returns the description of a type, or an error that says that it is not registered.
func (t *typeCache) of(gvk schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	k, _ := t.kinds.Lookup(gvk)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if d := t.kept[gvk]; d != nil && d.of == k {
		d.used = now
		return d.conv, nil
	}
	conv, err := t.describe(gvk, k)
	if err != nil {
		return nil, err
	}
	if len(t.kept) >= maxTypes {
		t.dropOldest()
	}
	t.kept[gvk] = &description{of: k, conv: conv, used: now}
	if t.expiry == nil {
		t.expiry = time.AfterFunc(typesIdle, t.expire)
	}
	return conv, nil
}

// describe builds the description of a type.
func (t *typeCache) describe(gvk schema.GroupVersionKind, k *resource.Kind) (managedfields.TypeConverter, error) {
	switch {
	case k != nil && k.TypeConverter != nil:
		conv, err := k.TypeConverter()
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", gvk, err)
		}
		return conv, nil
	case k != nil && k.Unstructured(), t.described == nil:
		return managedfields.NewDeducedTypeConverter(), nil
	}
	return t.described.TypeConverter(gvk)
}

// dropOldest drops the description that was not used for the longest time. t.mu is held.
func (t *typeCache) dropOldest() {
	var oldest schema.GroupVersionKind
	for gvk, d := range t.kept {
		if o := t.kept[oldest]; o == nil || d.used.Before(o.used) {
			oldest = gvk
		}
	}
	delete(t.kept, oldest)
}

// expire drops what was not used for typesIdle. With the last description everything goes that was kept to make others.
func (t *typeCache) expire() {
	if t.dropIdle() || t.described == nil {
		return
	}
	t.described.Release() // takes its time: without the lock
}

// dropIdle drops what was not used for typesIdle, and reports whether anything is left, for which the timer then runs on.
func (t *typeCache) dropIdle() (left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	next := typesIdle
	for gvk, d := range t.kept {
		remaining := typesIdle - now.Sub(d.used)
		if remaining <= 0 {
			delete(t.kept, gvk)
		} else {
			next = min(next, remaining)
		}
	}
	if len(t.kept) == 0 {
		t.expiry = nil
		return false
	}
	t.expiry.Reset(next)
	return true
}
