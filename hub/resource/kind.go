package resource

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/kube"
)

// Kind declares one served resource. Handlers know verbs, never kinds: everything that is special about a kind is here.
type Kind struct {
	GVK        schema.GroupVersionKind
	Plural     string // "pods"
	Singular   string // "pod"
	ShortNames []string
	Categories []string // "all"
	Namespaced bool
	Verbs      []string // of the main resource: create delete deletecollection get list patch update watch

	// StoredAs is nil for a kind that is stored as itself. Otherwise this kind is a view of another one (events.k8s.io
	// Event on core Event): ToStored and FromStored convert. Its Rules see stored objects; they may be stricter than the
	// stored kind's, whose Subresources, Grace, Fields and Indexes count.
	StoredAs   *Kind
	ToStored   func(kube.Object) (kube.Object, error)
	FromStored func(kube.Object) (kube.Object, error)

	New     func() kube.Object
	NewList func() runtime.Object

	Rules Rules
	// Handler, when set, answers creations in place of the store: a review, of which nothing is kept. The kind is virtual:
	// create is its only verb, and no object of it exists for anything to own, list or delete.
	Handler Handler
	// Subresources by name. "status" and "scale" are objects; "log", "exec", "attach", "portforward" are streams.
	Subresources map[string]*Subresource

	// Grace decides a deletion: how many seconds the object stays with a deletionTimestamp before it may go. nil or 0
	// means now. A pod that is bound to a node gets its grace period, an unscheduled one 0. It may fill opts.
	Grace func(obj kube.Object, opts *metav1.DeleteOptions) (seconds int64)
	// Finalizers of the spec: while there are any, deleting only marks the object, with a deletionTimestamp and by
	// Terminating (nil: no more than that), which owns its argument. A Namespace has them.
	Finalizers  func(obj kube.Object) (spec []string)
	Terminating func(obj kube.Object)
	// ReturnDeletedObject: a deletion that ends the object is answered with the object, as in upstream's storage of that
	// kind. All others are answered with a Status. Clients rely on which is which.
	ReturnDeletedObject bool
	// NoGarbageCollection: a deletion's propagation policy means nothing to the kind, and owner references neither lead to it
	// nor from it. Events are many and short-lived.
	NoGarbageCollection bool

	// Fields are the field selectors' values: metadata.name, metadata.namespace and those of the kind.
	Fields func(kube.Object) fields.Set
	// FieldLabels are the accepted field selector keys; any other is an error naming it.
	FieldLabels []string
	// Table renders kubectl's columns. objs are of this kind.
	Table func(ctx context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error)
	// Indexes for controllers, by name: the values an object is found under (for example "node" → spec.nodeName).
	Indexes map[string]func(kube.Object) []string
}

// Virtual reports whether nothing of the kind is stored.
func (k *Kind) Virtual() bool { return k.Handler != nil }

// Rules say what a write of an object (or of one of its subresources) means. All functions work on the stored version;
// none keeps its arguments. A nil function does nothing. Update rules see the new object and the old one, which they
// must not change. Who asks is in ctx (RequestFrom).
type Rules struct {
	Default        func(obj kube.Object)
	PrepareCreate  func(ctx context.Context, obj kube.Object)
	PrepareUpdate  func(ctx context.Context, obj, old kube.Object)
	ValidateCreate func(ctx context.Context, obj kube.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old kube.Object) field.ErrorList
	WarnCreate     func(ctx context.Context, obj kube.Object) []string
	WarnUpdate     func(ctx context.Context, obj, old kube.Object) []string
	// CreateOnUpdate: a PUT of a name that does not exist creates it.
	CreateOnUpdate bool
	// UnconditionalUpdate: a PUT without resourceVersion overwrites.
	UnconditionalUpdate bool
}

// Subresource is one path below an object.
type Subresource struct {
	Name  string
	GVK   schema.GroupVersionKind // of the body: the kind itself for status, autoscaling/v1 Scale, v1 Binding, policy/v1 Eviction, v1 PodLogOptions
	Verbs []string

	// An object-shaped subresource (status): the body is the parent's type, Rules.PrepareUpdate keeps what it may not touch.
	Rules *Rules

	// A derived one (scale): Get makes the body from the parent; Put applies a body to a copy of the parent, then the
	// parent's own Rules run.
	New func() runtime.Object
	Get func(parent kube.Object) (runtime.Object, error)
	Put func(parent kube.Object, body runtime.Object) error

	// Connect: a stream (log, exec, attach, portforward); the API server hands it to the node.
	Connect bool
	// A verb (binding, eviction, token): Handler answers creations, New makes their body. Verbs is "create". It is nil in the
	// declaration where the handler needs what only the hub has (Table.Handle).
	Handler Handler
}
