package resource

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/kube"
)

// NothingActs is the Inert of a kind whose controller is still to come.
const NothingActs = "nothing acts on it yet"

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// newKind fills in what every kind has in common, whatever the Go type of its objects.
func newKind(gvk schema.GroupVersionKind, plural, singular string) *Kind {
	k := &Kind{
		GVK:          gvk,
		Plural:       plural,
		Singular:     singular,
		Namespaced:   true,
		Verbs:        allVerbs,
		Subresources: map[string]*Subresource{},
		Indexes:      map[string]func(kube.Object) []string{"owner": owners},
	}
	k.SelectFields(func(kube.Object, fields.Set) {})
	return k
}

// Declare fills in what every kind of the scheme has in common. The scheme must know the kind, so the caller imports the install
// package of its group.
func Declare(gvk schema.GroupVersionKind, plural, singular string) *Kind {
	k := newKind(gvk, plural, singular)
	codec := schemeCodec{gvk}
	k.Codec = codec
	k.New = func() kube.Object {
		obj, err := codec.newObject()
		if err != nil {
			panic(err) // TestKindsAreComplete makes one of each
		}
		obj.GetObjectKind().SetGroupVersionKind(gvk)
		return obj
	}
	listGVK := gvk.GroupVersion().WithKind(gvk.Kind + "List")
	k.NewList = func() runtime.Object {
		list, err := Scheme().New(listGVK)
		if err != nil {
			panic(err) // as above
		}
		list.GetObjectKind().SetGroupVersionKind(listGVK)
		return list
	}
	k.Columns = func(ctx context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
		return table(k, objs, opts)
	}
	return k
}

// AnswerOnly declares that nothing of the kind is stored: a creation is answered by the handler that Kinds.Handle sets.
func (k *Kind) AnswerOnly() {
	k.virtual, k.Verbs = true, []string{"create"}
	k.NewList, k.Columns = nil, nil
}

// ClusterScoped declares that objects of the kind are in no namespace.
func (k *Kind) ClusterScoped() {
	k.Namespaced = false
	k.SelectFields(func(kube.Object, fields.Set) {})
}

// SelectFields declares the field selectors of the kind beyond its name and namespace.
func (k *Kind) SelectFields(set func(obj kube.Object, into fields.Set), labels ...string) {
	k.FieldLabels = []string{"metadata.name"}
	if k.Namespaced {
		k.FieldLabels = append(k.FieldLabels, "metadata.namespace")
	}
	k.FieldLabels = append(k.FieldLabels, labels...)
	k.Fields = func(obj kube.Object) fields.Set {
		s := make(fields.Set, len(k.FieldLabels))
		s["metadata.name"] = obj.GetName()
		if k.Namespaced {
			s["metadata.namespace"] = obj.GetNamespace()
		}
		set(obj, s)
		return s
	}
}

// FieldSelector checks a field selector's keys and brings old spellings (pods: spec.host) to the ones that Fields uses.
// The error is upstream's text: "field label not supported: X".
func (k *Kind) FieldSelector(s fields.Selector) (fields.Selector, error) {
	return s.Transform(func(label, value string) (string, string, error) {
		if !k.Unstructured() {
			return Scheme().ConvertFieldLabel(k.GVK, label, value)
		}
		if slices.Contains(k.FieldLabels, label) {
			return label, value, nil
		}
		return "", "", fmt.Errorf("field label not supported: %s", label)
	})
}

// owners returns the UIDs of all owners.
func owners(obj kube.Object) []string {
	refs := obj.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, len(refs))
	for i := range refs {
		uids[i] = string(refs[i].UID)
	}
	return uids
}
