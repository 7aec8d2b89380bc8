package openapi

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Types makes descriptions of single types for server-side apply. All of upstream's would be tens of megabytes, so each is made of
// the definitions that its type refers to, and of no other. The zero value is ready, and safe for concurrent use.
type Types struct {
	mu   sync.Mutex
	text definitions // some 2 MB; nil: unpacked by the next call; guarded by mu
}

// TypeConverter returns the description of gvk, a type with a Go type. The error of a type without a definition is one that says that
// the type is not registered.
func (t *Types) TypeConverter(gvk schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	name := definition(gvk)
	if name == "" {
		return nil, runtime.NewNotRegisteredErrForKind("openapi", gvk)
	}
	models, err := t.closure(name)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", gvk, err)
	}
	models[name].AddExtension("x-kubernetes-group-version-kind", []any{gvkValue(gvk)})
	c, err := managedfields.NewTypeConverter(models, false)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", gvk, err)
	}
	return c, nil
}

// Custom returns the description of gvk, a type without a Go type, whose fields s describes; it takes s over. nil: the merge rules are
// deduced from the objects. preserve says that fields which s does not have are kept.
func (t *Types) Custom(gvk schema.GroupVersionKind, s *spec.Schema, preserve bool) (managedfields.TypeConverter, error) {
	if s == nil {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	models, err := t.closure(objectMeta)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", gvk, err)
	}
	addObjectFields(s, definitionRef)
	addEmbedded(s, definitionRef, false)
	s.AddExtension("x-kubernetes-group-version-kind", []any{gvkValue(gvk)})
	models[customName(gvk)] = s
	c, err := managedfields.NewTypeConverter(models, preserve)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", gvk, err)
	}
	return c, nil
}

// definitionRef returns a reference to a definition of version 2.
func definitionRef(to string) spec.Ref {
	return spec.MustCreateRef("#/definitions/" + common.EscapeJsonPointer(to))
}

// Release frees what is kept for the next call of TypeConverter.
func (t *Types) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = nil
}

// closure returns the schemas of a type and of all that it refers to.
func (t *Types) closure(name string) (map[string]*spec.Schema, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text == nil {
		text, err := unpackDefinitions()
		if err != nil {
			return nil, err
		}
		t.text = text
	}
	defs, err := t.text.closure(definitionRef, name)
	if err != nil {
		return nil, err
	}
	models := make(map[string]*spec.Schema, len(defs))
	for name, d := range defs {
		delete(d.Schema.Extensions, common.ExtensionV2Schema)
		models[name] = &d.Schema
	}
	if models[name] == nil {
		return nil, fmt.Errorf("no definition %s", name)
	}
	return models, nil
}
