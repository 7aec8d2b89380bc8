package celbound

import (
	"math"
	"reflect"
	"unsafe"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"k8s.io/apiserver/pkg/cel/mutation"
	"k8s.io/apiserver/pkg/cel/mutation/dynamic"
)

// perItem is what an item takes once a result is written out, beside its texts, in bytes.
const perItem = 300

// Written returns about how many bytes of memory the result of an expression takes once it is written out: what it shares counts as
// often as it is there. It stops counting above limit, and looks at each part once, so that it is quick however large the result would
// become.
func Written(v ref.Val, limit int64) int64 {
	return written{limit: limit, item: perItem, known: map[ref.Val]int64{}}.of(v)
}

// Patch is what applying a JSON patch depends on.
type Patch struct {
	Operations, Tests int
	Largest           int // about how many bytes the largest value has as JSON
}

// PatchOf returns that of the JSON patch that an expression has made, which Written has found small; zero when it has made something else.
func PatchOf(v ref.Val) (p Patch) {
	list, ok := v.(traits.Lister)
	if !ok {
		return p
	}
	sizes := written{limit: math.MaxInt32, item: 2, known: map[ref.Val]int64{}}
	for it := list.Iterator(); it.HasNext() == types.True; {
		op, ok := it.Next().(*mutation.JSONPatchVal)
		if !ok {
			continue
		}
		p.Operations++
		if op.Op == "test" {
			p.Tests++
		}
		if op.Val != nil {
			p.Largest = max(p.Largest, int(sizes.of(op.Val)))
		}
	}
	return p
}

// written adds up one result.
type written struct {
	limit int64
	item  int64             // what an item counts beside its texts
	known map[ref.Val]int64 // of the parts that have others within
}

func (w written) of(v ref.Val) (n int64) {
	switch v := v.(type) {
	case types.String:
		return w.item + int64(len(v))
	case types.Bytes:
		return w.item + 4*int64(len(v))/3
	case *types.Optional:
		if v.HasValue() {
			return w.of(v.GetValue())
		}
		return w.item
	}
	if v == nil || reflect.TypeOf(v).Kind() != reflect.Pointer {
		return w.item
	}
	if n, ok := w.known[v]; ok {
		return n
	}
	n = w.item
	add := func(part ref.Val) bool {
		n += w.of(part)
		return n <= w.limit
	}
	switch v := v.(type) {
	case *dynamic.ObjectVal:
		for name, part := range fieldsOf(v) {
			if n += int64(len(name)); !add(part) {
				break
			}
		}
	case *mutation.JSONPatchVal:
		if n += int64(len(v.Op) + len(v.Path) + len(v.From)); v.Val != nil {
			add(v.Val)
		}
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			part, ok := v.Find(key)
			if !add(key) || ok && !add(part) {
				break
			}
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			if !add(it.Next()) {
				break
			}
		}
	}
	w.known[v] = n
	return n
}

// objectFields is where the fields of an object lie in it. Kubernetes' library shows them only written out, which is what must not happen
// before they have been counted.
var objectFields = func() uintptr {
	f, ok := reflect.TypeFor[dynamic.ObjectVal]().FieldByName("fields")
	if !ok || f.Type != reflect.TypeFor[map[string]ref.Val]() {
		return 0 // of another version of the library; TestWritten fails
	}
	return f.Offset
}()

func fieldsOf(v *dynamic.ObjectVal) map[string]ref.Val {
	if objectFields == 0 {
		return nil
	}
	return *(*map[string]ref.Val)(unsafe.Add(unsafe.Pointer(v), objectFields))
}
