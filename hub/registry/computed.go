package registry

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/resource"
)

// computedGet answers with an object of a kind that is not stored (resource.Kind.Objects).
func computedGet(t resource.Target) (*Result, error) {
	for _, obj := range t.Kind.Objects() {
		if obj.GetName() != t.Name {
			continue
		}
		data, err := encodeBody(obj)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		return &Result{JSON: data, Object: obj}, nil
	}
	return nil, notFound(t.Kind, t.Name)
}

// computedList lists a kind that is not stored. There are few such objects, so a limit does not divide them, and the list has no
// revision to continue from.
func (r *Registry) computedList(t resource.Target, opts *metav1.ListOptions) (*ListResult, error) {
	sel, err := r.selectionOf(t, opts)
	if err != nil {
		return nil, err
	}
	res := &ListResult{}
	for _, obj := range t.Kind.Objects() {
		if !sel.hasKey(resource.Key(t.Kind, obj.GetNamespace(), obj.GetName())) || !sel.matches(obj) {
			continue
		}
		data, err := encodeBody(obj)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		res.Items = append(res.Items, data)
	}
	return res, nil
}
