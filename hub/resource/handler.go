package resource

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/internal/kube"
)

// Handler answers creations that store no object of the body's type: those of a subresource that is a verb (a pod's binding),
// or of a kind that is not stored (a review). hub/registry/podverbs and hub/registry/reviews have the built-in ones.
type Handler interface {
	// Handle does what body asks for. body is of the type that the Subresource or the Kind declares, or of the Kind itself in a
	// commit of several writes. q names the parent of a subresource, which need not exist. Both are shared: read-only. An error
	// that is no Status becomes a 500 with its text.
	Handle(ctx context.Context, q *Request, body runtime.Object, objects Objects) (Answer, error)
}

// Answer is what a Handler answers a request with.
type Answer struct {
	Object   runtime.Object // with its TypeMeta; nil: a Status that says "Success"
	Warnings []string
}

// Objects is what a Handler may do with stored objects. The registry does each as for any request: with admission, again after a
// conflict, and without a commit in a dry run. Errors are Statuses. It is valid as long as the request.
type Objects interface {
	// Get returns a stored object, which is shared: read-only.
	Get(ctx context.Context, gvk kube.GVK, namespace, name string) (kube.Object, error)
	// Admit runs admission for a request that changes nothing stored. old is its parent.
	Admit(ctx context.Context, q *Request, old kube.Object, body runtime.Object) error
	// Update changes the object that q names. change gets a copy, after admission; it runs again on a newer one when another
	// write came between.
	Update(ctx context.Context, q *Request, body runtime.Object, change func(obj kube.Object) error) error
	// Delete deletes the object that q names as a deletion with opts does. mark gets the copy that is written and the object
	// before, after admission; it may still refuse, and runs again on a newer one when another write came between.
	Delete(ctx context.Context, q *Request, body runtime.Object, opts *metav1.DeleteOptions, mark func(obj, old kube.Object) error) error
	// List returns all objects of a namespace as of now. They are shared: read-only.
	List(ctx context.Context, gvk kube.GVK, namespace string) ([]kube.Object, error)
	// UpdateStatus writes the status of another object, as the hub itself. obj's resourceVersion makes it conditional.
	UpdateStatus(ctx context.Context, obj kube.Object) error
	// Now returns the hub's time in whole seconds, as objects carry times.
	Now() time.Time
}

// Handle sets the handler of a declared subresource, or of a virtual kind itself ("") that was declared without one. It comes
// before the kinds are shared: readers take no lock.
func (s *Kinds) Handle(gvk kube.GVK, subresource string, h Handler) error {
	k, ok := s.Lookup(gvk)
	if !ok {
		return fmt.Errorf("handler of %s/%s: the kind is not declared", gvk, subresource)
	}
	if subresource == "" {
		return k.handle(h)
	}
	sub := k.Subresources[subresource]
	switch {
	case sub == nil:
		return fmt.Errorf("handler of %s/%s: the subresource is not declared", gvk, subresource)
	case sub.Handler != nil:
		return fmt.Errorf("handler of %s/%s: it has one", gvk, subresource)
	}
	sub.Handler = h
	return nil
}

// Compute sets where the objects of a kind that cannot be written come from. It comes before the kinds are shared, as Handle does.
func (s *Kinds) Compute(gvk kube.GVK, objects func() []kube.Object) error {
	k, ok := s.Lookup(gvk)
	if !ok || !slices.Equal(k.Verbs, []string{"get", "list"}) {
		return fmt.Errorf("objects of %s: the kind is not declared, or has verbs that need a store", gvk)
	}
	k.Objects = objects
	return nil
}

func (k *Kind) handle(h Handler) error {
	switch {
	case !k.Virtual():
		return fmt.Errorf("handler of %s: its objects are stored", k.GVK)
	case k.Handler != nil:
		return fmt.Errorf("handler of %s: it has one", k.GVK)
	}
	k.Handler = h
	return nil
}
