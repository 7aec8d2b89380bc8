package weight

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Shape is what a place of a body is decoded into. It is immutable once ShapeOf or Untyped has returned it.
type Shape struct {
	size    int64             // bytes of one value where it lies in a list, a map or behind a pointer
	loose   bool              // has an UnmarshalJSON of its own: each object and entry within counts as size
	fields  map[string]*Shape // of an object, by JSON name; other fields are skipped by the decoder
	entry   *Shape            // of a list or of a map without fixed names
	numbers map[int]*Shape    // of a protobuf message, by field number; those that hold messages
}

// untyped is any JSON value, as maps, lists and interfaces hold it.
var untyped = &Shape{}

// leaf is a value that takes no more than its text.
var leaf = &Shape{size: 16}

// Untyped returns the shape of what has no Go type: a custom resource or a patch.
func Untyped() *Shape { return untyped }

// shapes are those of the types that bodies have been read into: as many as there are kinds. By reflect.Type.
var shapes sync.Map

// ShapeOf returns the shape of the type that obj points to.
func ShapeOf(obj any) *Shape {
	t := reflect.TypeOf(obj)
	if s, ok := shapes.Load(t); ok {
		return s.(*Shape)
	}
	s := builder{}.shape(t)
	shapes.Store(t, s)
	return s
}

// builder builds the shapes of one type and of those within, each once: types may contain themselves.
type builder map[reflect.Type]*Shape

var (
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	anyObject   = reflect.TypeFor[unstructured.Unstructured]()
	rawBytes    = reflect.TypeFor[[]byte]()
)

// raw reports whether values of the type are JSON that is kept as it is, and read as any value later: by conversions, schemas, managers of
// fields. Upstream calls what such types hold Raw.
func raw(t reflect.Type) bool {
	if t.Kind() == reflect.Struct {
		if f, ok := t.FieldByName("Raw"); ok && f.Type == rawBytes {
			return true
		}
	}
	return t.Kind() == reflect.Interface || t == anyObject
}

func (b builder) shape(t reflect.Type) *Shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case raw(t):
		return untyped
	case b[t] != nil:
		return b[t]
	}
	s := &Shape{size: int64(t.Size())}
	b[t] = s
	switch t.Kind() {
	case reflect.Struct:
		s.fields, s.numbers = map[string]*Shape{}, map[int]*Shape{}
		b.inline(s, t)
	case reflect.Map:
		s.entry = b.shape(t.Elem())
		s.numbers = map[int]*Shape{} // a map is a list of messages of a key and a value
		if s.entry.message() {
			s.numbers[2] = s.entry
		}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			*s = *leaf
			return s
		}
		s.entry = b.shape(t.Elem())
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		s.loose = true
		for _, f := range s.fields { // what it may turn into
			s.size = max(s.size, f.size)
			if f.entry != nil {
				s.size = max(s.size, f.entry.size)
			}
		}
	}
	return s
}

// inline adds the fields of the struct t to s.
func (b builder) inline(s *Shape, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		of := b.shape(f.Type)
		if f.Anonymous && (name == "" || strings.Contains(options, "inline")) {
			inner := f.Type
			for inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				b.inline(&Shape{fields: s.fields, numbers: map[int]*Shape{}}, inner)
			}
		} else if name != "-" && (name != "" || !reflect.PointerTo(t).Implements(unmarshaler)) {
			if name == "" {
				name = f.Name
			}
			s.fields[name] = of
		} else {
			s.fields[f.Name] = of // of a type that reads itself: for its size
		}
		if parts := strings.Split(f.Tag.Get("protobuf"), ","); len(parts) > 2 && parts[0] == "bytes" {
			if f.Type.Kind() == reflect.Slice && of.entry != nil {
				of = of.entry
			}
			if n, err := strconv.Atoi(parts[1]); err == nil && of.message() {
				s.numbers[n] = of
			}
		}
	}
}

// message reports whether the value is a message in protobuf.
func (s *Shape) message() bool { return s.numbers != nil || s == untyped }
