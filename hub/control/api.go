package control

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// Reader returns typed objects as of the last commit that the hub's cache has taken in. Every object is shared: read-only; DeepCopy
// before changing it. A read after one's own write may still be older than that write, unless Feed.CatchUp came between. Of a custom
// object only the metadata is there, without annotations and managers, as a *metav1.PartialObjectMetadata, which Writer takes too.
type Reader interface {
	Get(gvk kube.GVK, namespace, name string) (kube.Object, bool)
	// List returns all objects of a namespace, "" for all, in key order. The slice is the caller's.
	List(gvk kube.GVK, namespace string) []kube.Object
	// Index returns the objects that the kind's declared index lists under value.
	Index(gvk kube.GVK, index, value string) []kube.Object
}

// Writer changes objects by the same rules as the API: defaulting, validation, admission, optimistic locking. Errors are
// k8s.io/apimachinery/pkg/api/errors statuses.
type Writer interface {
	Create(ctx context.Context, obj kube.Object) (kube.Object, error)
	// Update replaces the object, or only what the subresource covers ("status", ...; "" for the object itself). A
	// resourceVersion in obj makes it conditional.
	Update(ctx context.Context, obj kube.Object, subresource string) (kube.Object, error)
	Delete(ctx context.Context, gvk kube.GVK, namespace, name string, opts metav1.DeleteOptions) error
	// Commit makes all writes in one transaction, or none. It is how many status updates or bindings share one fsync.
	Commit(ctx context.Context, writes []Write) error
}

// Write is one change within a Commit: Create when Old is nil, otherwise an update of Object that fails as a Conflict
// when the stored revision is not Old's. Delete removes Old at once, without grace or finalizers: the caller has dealt with
// those. A Subresource that is a verb takes Object as its body and needs no Old: "binding" a pod with spec.nodeName.
type Write struct {
	Object      kube.Object
	Old         kube.Object
	Subresource string
	Delete      bool
}

// Feed reports which objects changed.
type Feed interface {
	// Subscribe calls f from one goroutine at a time, in commit order, for every change of the kinds after the call returned; f
	// must return quickly. Before it returns, it has called f once with Old nil for each object that exists now. The
	// subscription ends with ctx.
	Subscribe(ctx context.Context, f func(Change), kinds ...kube.GVK)
	// CatchUp returns nil once the Reader shows all that was committed before the call: at once when it does already.
	// Otherwise it returns ctx's error, or an error because the feed has ended.
	CatchUp(ctx context.Context) error
}

// Change is one changed object. Old is nil for a creation, New is nil for a deletion. Both are shared: read-only.
type Change struct {
	GVK      kube.GVK
	Old, New kube.Object
}

// Client is the API as a controller, the scheduler's driver and the dispatcher see it.
type Client interface {
	Reader
	Writer
	Feed
}

// Get returns what Reader.Get does, with its type. The kind's Go type must be T: otherwise it panics.
func Get[T kube.Object](r Reader, gvk kube.GVK, namespace, name string) (T, bool) {
	o, ok := r.Get(gvk, namespace, name)
	if !ok {
		var zero T
		return zero, false
	}
	return o.(T), true
}

// List returns what Reader.List does, with its type.
func List[T kube.Object](r Reader, gvk kube.GVK, namespace string) []T {
	return typed[T](r.List(gvk, namespace))
}

// Index returns what Reader.Index does, with its type.
func Index[T kube.Object](r Reader, gvk kube.GVK, index, value string) []T {
	return typed[T](r.Index(gvk, index, value))
}

func typed[T kube.Object](objs []kube.Object) []T {
	out := make([]T, len(objs))
	for i, o := range objs {
		out[i] = o.(T)
	}
	return out
}
