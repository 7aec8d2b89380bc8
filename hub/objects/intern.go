package objects

import (
	"reflect"

	"petrel.dev/petrel/internal/kube"
)

// maxInterned is the longest string that is looked up, in bytes: longer ones are hardly ever alike.
const maxInterned = 64

// interner makes equal strings of many objects share their memory. A decoder allocates each string, and of the forty in a pod all
// but a few (name, UID, addresses, ids) occur in thousands of others. It is used while a kind is filled, and then dropped.
type interner struct {
	strings map[string]string
	fields  map[reflect.Type][]int // of a struct: those that may hold strings
}

func newInterner() *interner {
	return &interner{strings: map[string]string{}, fields: map[reflect.Type][]int{}}
}

// object replaces strings of obj, which no other goroutine reads yet, by those of objects before it.
func (in *interner) object(obj kube.Object) { in.walk(reflect.ValueOf(obj)) }

func (in *interner) string(s string) string {
	if len(s) == 0 || len(s) > maxInterned {
		return s
	}
	if known, ok := in.strings[s]; ok {
		return known
	}
	in.strings[s] = s
	return s
}

// walk replaces the strings below v, which can be set or is a pointer.
func (in *interner) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			in.walk(v.Elem())
		}
	case reflect.Struct:
		for _, i := range in.fieldsOf(v.Type()) {
			in.walk(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			in.walk(v.Index(i))
		}
	case reflect.String:
		v.SetString(in.string(v.String()))
	case reflect.Map:
		in.walkMap(v)
	}
}

// fieldsOf returns the exported fields of a struct that hold strings, perhaps further below.
func (in *interner) fieldsOf(t reflect.Type) []int {
	if fields, ok := in.fields[t]; ok {
		return fields
	}
	in.fields[t] = nil // of a type that holds itself
	var fields []int
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && in.holdsStrings(f.Type) {
			fields = append(fields, i)
		}
	}
	in.fields[t] = fields
	return fields
}

func (in *interner) holdsStrings(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String:
		return true
	case reflect.Pointer, reflect.Slice:
		return in.holdsStrings(t.Elem())
	case reflect.Struct:
		return len(in.fieldsOf(t)) > 0
	case reflect.Map:
		return t == stringMap
	}
	return false
}

var stringMap = reflect.TypeFor[map[string]string]()

// walkMap replaces a map of strings by strings: labels, annotations, selectors. Others have few keys.
func (in *interner) walkMap(v reflect.Value) {
	m, ok := v.Interface().(map[string]string)
	if !ok || m == nil {
		return
	}
	out := make(map[string]string, len(m))
	for key, value := range m {
		out[in.string(key)] = in.string(value)
	}
	v.Set(reflect.ValueOf(out))
}
