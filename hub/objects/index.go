package objects

import (
	"slices"
	"strings"

	"petrel.dev/petrel/internal/kube"
)

// index finds objects by a value that the kind's declaration computes from them. Objects under a value are in key order.
type index struct {
	values func(kube.Object) []string // pure; from the kind's declaration
	under  map[string][]indexed       // by value, in key order, without empty lists; guarded by Cache.mu
}

type indexed struct {
	key string
	obj kube.Object
}

func newIndex(values func(kube.Object) []string) *index {
	return &index{values: values, under: map[string][]indexed{}}
}

// change moves key from where old was to where obj is. Either may be nil.
func (ix *index) change(key string, old, obj kube.Object) {
	var was, is []string
	if old != nil {
		was = ix.values(old)
	}
	if obj != nil {
		is = ix.values(obj)
	}
	for _, v := range was {
		if !slices.Contains(is, v) {
			ix.remove(v, key)
		}
	}
	for _, v := range is {
		ix.put(v, key, obj)
	}
}

func (ix *index) put(value, key string, obj kube.Object) {
	list := ix.under[value]
	i, found := find(list, key)
	if found {
		list[i].obj = obj
		return
	}
	ix.under[value] = slices.Insert(list, i, indexed{key, obj})
}

func (ix *index) remove(value, key string) {
	list := ix.under[value]
	i, found := find(list, key)
	if !found {
		return
	}
	if len(list) == 1 {
		delete(ix.under, value)
		return
	}
	ix.under[value] = slices.Delete(list, i, i+1)
}

func find(list []indexed, key string) (int, bool) {
	return slices.BinarySearchFunc(list, key, func(e indexed, key string) int { return strings.Compare(e.key, key) })
}
