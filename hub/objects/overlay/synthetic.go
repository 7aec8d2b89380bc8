package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Synthetic declares that a kind has exactly one object for each object of another kind, under its name. All fields but
// Namespace are required.
type Synthetic struct {
	Kind *resource.Kind
	// Namespace is where the objects are when their sources have none. Empty: where their sources are.
	Namespace string
	Source    *resource.Kind
	// Build makes the object, which the caller owns, from a shared one. Its kind, name, namespace and resourceVersion are
	// filled in. Labels must not depend on anything but the name: no object enters or leaves a selection.
	Build func(source kube.Object) kube.Object
	// Why is the text of the refusal of a write: where the object comes from.
	Why string
}

// keyRange is a Synthetic with its place among the keys. A key in it is prefix + rest, its source's key source + rest.
type keyRange struct {
	Synthetic
	prefix, source string // end with a slash
}

// newRanges returns the ranges in key order.
func newRanges(synthetics []Synthetic) ([]*keyRange, error) {
	var ranges []*keyRange
	for _, s := range synthetics {
		if s.Kind == nil || s.Source == nil || s.Build == nil || s.Why == "" {
			return nil, errors.New("overlay: a Synthetic needs Kind, Source, Build and Why")
		}
		switch {
		case s.Kind.Namespaced && !s.Source.Namespaced && s.Namespace == "":
			return nil, fmt.Errorf("overlay: %s needs a Namespace: %s has none", s.Kind.GVK.Kind, s.Source.GVK.Kind)
		case s.Namespace != "" && s.Source.Namespaced, s.Namespace != "" && !s.Kind.Namespaced, s.Source.Namespaced && !s.Kind.Namespaced:
			return nil, fmt.Errorf("overlay: %s and %s do not have one name for one", s.Kind.GVK.Kind, s.Source.GVK.Kind)
		}
		ranges = append(ranges, &keyRange{Synthetic: s, prefix: resource.Prefix(s.Kind, s.Namespace), source: resource.Prefix(s.Source, "")})
	}
	slices.SortFunc(ranges, func(a, b *keyRange) int { return cmp.Compare(a.prefix, b.prefix) })
	for _, a := range ranges {
		for _, b := range ranges {
			if a != b && strings.HasPrefix(b.prefix, a.prefix) || strings.HasPrefix(b.source, a.prefix) || strings.HasPrefix(a.prefix, b.source) {
				return nil, fmt.Errorf("overlay: %s and %s overlap", a.prefix, b.prefix)
			}
		}
	}
	return ranges, nil
}

// sourceKey returns the key that the object at key, or a prefix of keys in the range, is made from.
func (r *keyRange) sourceKey(key string) string { return r.source + key[len(r.prefix):] }

// keyOf returns the key of the object that is made from the one at source.
func (r *keyRange) keyOf(source string) string { return r.prefix + source[len(r.source):] }

// sourceAfter translates a key after which a list goes on; it may lie outside of the range.
func (r *keyRange) sourceAfter(after string) string {
	switch {
	case strings.HasPrefix(after, r.prefix):
		return r.sourceKey(after)
	case after < r.prefix:
		return ""
	}
	return r.source + "\xff" // behind all names
}

// build makes the entry of the object that is made from source.
func (r *keyRange) build(typed *objects.Cache, source sqlstore.Entry) (sqlstore.Entry, error) {
	value, err := r.value(typed, source.Key, source.Rev, source.Value)
	if err != nil {
		return sqlstore.Entry{}, err
	}
	source.Key, source.Value = r.keyOf(source.Key), value
	return source, nil
}

// value makes the stored form of the object that is made from raw, the source's value at rev.
func (r *keyRange) value(typed *objects.Cache, key string, rev sqlstore.Revision, raw []byte) ([]byte, error) {
	source, err := typed.Typed(r.Source, key, rev, raw)
	if err != nil {
		return nil, fmt.Errorf("%s from %s: %w", r.Kind.GVK.Kind, key, err)
	}
	obj := r.Build(source)
	obj.SetName(source.GetName())
	obj.SetNamespace(cmp.Or(r.Namespace, source.GetNamespace()))
	enc, err := objects.Encode(r.Kind, obj)
	if err != nil {
		return nil, fmt.Errorf("%s from %s: %w", r.Kind.GVK.Kind, key, err)
	}
	return enc.With(rev), nil
}

// refusal returns the error of a write of key.
func (r *keyRange) refusal(key string) error {
	_, name, _ := resource.NamesOf(r.Kind, key)
	return apierrors.NewForbidden(r.Kind.Resource(), name, errors.New(r.Why))
}
