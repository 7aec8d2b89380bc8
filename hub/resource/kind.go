package resource

import (
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/internal/kube"
)

// Kind declares one served resource. The registry and the API server have no code for single kinds: everything that is special
// about one is here. It does not change once it is shared (Kinds.Add).
type Kind struct {
	GVK        schema.GroupVersionKind
	Plural     string // "pods"
	Singular   string // "pod"
	ShortNames []string
	Categories []string // "all"
	Namespaced bool
	Verbs      []string // of the main resource: create delete deletecollection get list patch update watch

	// StoredAs is nil for a kind that is stored as itself. Otherwise this kind is a view of another one (events.k8s.io
	// Event on core Event), and its Codec converts between the two. Its Rules see stored objects; they may be stricter than
	// the stored kind's, whose Subresources, Grace, Fields and Indexes count.
	StoredAs *Kind

	// ownVersion says of a view that its requests are decided in its own version: Working.
	ownVersion bool
	// shaped says that stored bytes may differ from what the kind shows: it has a schema, which may have changed since.
	shaped bool
	// listKind is "" for GVK.Kind + "List".
	listKind string

	// Unserved says that no path leads to the kind. Its objects exist, so loops that follow all kinds see it.
	Unserved bool
	// Deprecated is a warning with each answer; "": none.
	Deprecated string
	// Closing, when not nil, returns why no object can be created any more; "": it can.
	Closing func() string
	// Slim, when not nil, reads from stored JSON the part of an object that loops see and the typed cache keeps, because all of it
	// would be too large. Data is not kept. Of a kind without a Go type that is a *metav1.PartialObjectMetadata without annotations and
	// managers. Loops change the metadata that they see and subresources of such objects, and nothing else.
	Slim func(data []byte) (kube.Object, error)
	// Describe, when not nil, returns the OpenAPI schema of a kind without a Go type, version 2 or 3, without apiVersion, kind and
	// metadata. nil: nothing is known of its fields, or (version 2) clients should not look at them. It belongs to the caller.
	Describe func(v2 bool) (*spec.Schema, error)

	// Objects, when not nil, returns the kind's objects, which are made when they are asked for: nothing is stored, and get and list
	// are the only verbs. They belong to the caller, and carry their TypeMeta. Kinds.Compute sets it.
	Objects func() []kube.Object

	// Codec reads and writes the kind's objects; nil for virtual kinds only. No other code depends on their Go type.
	Codec Codec

	New     func() kube.Object
	NewList func() runtime.Object

	// TypeConverter describes the kind's fields to server-side apply: which lists are sets or maps, and what is atomic. It is called
	// when an apply needs it, and again after the result was dropped because nobody did; the result must describe objects of GVK. nil:
	// a kind with a Go type is described by upstream's OpenAPI definitions, another by its objects, whose lists are then atomic.
	TypeConverter func() (managedfields.TypeConverter, error)

	Rules Rules
	// Handler, when not nil, answers creations instead of the store: of a review, for example. The kind is virtual:
	// create is its only verb, and no object of it exists for anything to own, list or delete.
	Handler Handler
	// virtual marks a declaration whose Handler needs what only the hub has: it comes with Kinds.Handle. Or it marks one that can only
	// be read (ReadOnly).
	virtual bool
	// Subresources by name. "status" and "scale" are objects; "log", "exec", "attach", "portforward", "proxy" are streams.
	Subresources map[string]*Subresource

	// Grace decides a deletion: how many seconds the object stays with a deletionTimestamp before it may go. nil or 0
	// means now. A pod that is bound to a node gets its grace period, an unscheduled one 0. It may fill opts.
	Grace func(obj kube.Object, opts *metav1.DeleteOptions) (seconds int64)
	// Finalizers returns those of the spec. While there are any, a deletion only marks the object: with a deletionTimestamp, and by
	// Terminating, when not nil, which owns its argument. Namespaces have them.
	Finalizers  func(obj kube.Object) (spec []string)
	Terminating func(obj kube.Object)
	// ReturnDeletedObject says that a deletion that ends the object is answered with it, as in upstream's storage of that
	// kind. All others are answered with a Status. Clients rely on which is which.
	ReturnDeletedObject bool
	// NoGarbageCollection says that a deletion's propagation policy means nothing to the kind, and that owner references lead
	// neither to it nor from it. Events are many and short-lived.
	NoGarbageCollection bool

	// OrphanDependents says that a deletion without a propagation policy leaves the dependents, as v1 has it for the kinds that
	// are older than garbage collection.
	OrphanDependents bool
	// OrphanWarning is a warning with the answer to such a deletion; "": none.
	OrphanWarning string

	// Inert is empty for a kind that something in Petrel acts on, or nothing on Kubernetes either. Otherwise it says what a user
	// who makes such an object does not get ("nothing acts on it yet"); the answer to a creation warns of it.
	Inert string

	// TTL is nil for a kind whose objects stay until they are deleted.
	TTL *TTL

	// Fields are the field selectors' values: metadata.name, metadata.namespace and those of the kind.
	Fields func(kube.Object) fields.Set
	// FieldLabels are the accepted field selector keys; any other is an error naming it.
	FieldLabels []string
	// Columns renders kubectl's columns for Table. objs are of this kind. nil: NAME and AGE.
	Columns func(ctx context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error)
	// Indexes for controllers, by name: the values an object is found under (for example "node" → spec.nodeName).
	Indexes map[string]func(kube.Object) []string
}

// GVR returns the kind's group, version and plural.
func (k *Kind) GVR() schema.GroupVersionResource { return k.GVK.GroupVersion().WithResource(k.Plural) }

// Resource returns the kind's group and plural: errors name it so.
func (k *Kind) Resource() schema.GroupResource { return k.GVR().GroupResource() }

// Stored returns the kind whose objects are in the store: itself, unless it is a view of another.
func (k *Kind) Stored() *Kind {
	if k.StoredAs != nil {
		return k.StoredAs
	}
	return k
}

// Working returns the kind in whose version requests of k are decided: its rules, subresources, field selectors and admission see
// them. For most views that is the stored kind. A version of a custom kind decides itself, and is converted when it is stored.
func (k *Kind) Working() *Kind {
	if k.ownVersion {
		return k
	}
	return k.Stored()
}

// AsStored reports whether the kind shows its objects as the bytes that are stored.
func (k *Kind) AsStored() bool { return k.StoredAs == nil && !k.shaped }

// ListKind returns the kind of a list of objects.
func (k *Kind) ListKind() string {
	if k.listKind != "" {
		return k.listKind
	}
	return k.GVK.Kind + "List"
}

// ToWorking returns an object of this kind as one of Working's. It takes obj over.
func (k *Kind) ToWorking(ctx context.Context, obj kube.Object) (kube.Object, error) {
	if k.ownVersion {
		return obj, nil
	}
	return k.ToStored(ctx, obj)
}

// ToStored returns an object of this kind as one of the stored kind: itself, unless this kind is a view. It takes obj over.
func (k *Kind) ToStored(ctx context.Context, obj kube.Object) (kube.Object, error) {
	if k.StoredAs == nil {
		return obj, nil
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	out, err := k.Codec.Convert(ctx, []kube.Object{obj}, k.StoredAs.GVK.GroupVersion())
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// FromStored returns stored objects as this kind shows them: themselves when it shows them as stored. Results may share memory
// with objs.
func (k *Kind) FromStored(ctx context.Context, objs ...kube.Object) ([]kube.Object, error) {
	if k.AsStored() {
		return objs, nil
	}
	return k.Codec.Convert(ctx, objs, k.GVK.GroupVersion())
}

// Table renders objs of the kind as kubectl shows them. Each row's Object.Object is the object itself: the caller puts there what
// the request's includeObject asks for.
func (k *Kind) Table(ctx context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
	if k.Columns == nil {
		return nameAndAge(objs, opts)
	}
	return k.Columns(ctx, objs, opts)
}

// Unstructured reports whether the kind has no Go type: its objects are *unstructured.Unstructured, have no protobuf
// form and no strategic merge patch.
func (k *Kind) Unstructured() bool {
	_, ok := k.Codec.(unstructuredCodec)
	return ok
}

// PatchTypes returns the patch types of the kind's objects and of their subresources.
func (k *Kind) PatchTypes() []types.PatchType {
	if k.Unstructured() { // the tags of a Go type define how lists merge
		return untypedPatches
	}
	return typedPatches
}

var (
	typedPatches = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType,
		types.ApplyYAMLPatchType, types.ApplyCBORPatchType}
	untypedPatches = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.ApplyYAMLPatchType, types.ApplyCBORPatchType}
)

// DecodeStrict decodes JSON with apiVersion and kind as an object of the kind. forgiven are the unknown and repeated fields.
func (k *Kind) DecodeStrict(data []byte) (obj kube.Object, forgiven []error, err error) {
	obj = k.New()
	var into any = obj
	if u, ok := obj.(*unstructured.Unstructured); ok { // its own UnmarshalJSON is not strict
		into = &u.Object
	}
	if forgiven, err = kjson.UnmarshalStrict(data, into); err != nil {
		return nil, nil, err
	}
	unknown, err := k.Codec.Conform(obj)
	if err != nil {
		return nil, nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	return obj, append(forgiven, unknown...), nil
}

// Virtual reports whether nothing of the kind is stored.
func (k *Kind) Virtual() bool { return k.virtual || k.Handler != nil }

// Named reports whether the kind has objects with names: stored ones, or ones that are made when they are read.
func (k *Kind) Named() bool { return !k.Virtual() || slices.Contains(k.Verbs, "get") }

// TTL is when a kind's objects are deleted automatically. The deletion of a Namespace does not wait for such objects.
type TTL struct {
	After      time.Duration // since the last write; more than 0
	MaxObjects int           // how many are kept, the oldest go first; 0: no bound
	MaxBytes   int           // of JSON that are kept; 0: no bound
	// LastWrite estimates from stored JSON when an object was last written, for those that are there when the hub starts; nil:
	// when it was created. The zero time means that it is not known.
	LastWrite func(data []byte) time.Time
}

// Rules define what a write of an object (or of one of its subresources) does. All functions work on the stored version;
// none keeps its arguments. A nil function does nothing. Update rules see the new object and the old one, which they
// must not change. The request with its user is in ctx (RequestFrom).
type Rules struct {
	Default        func(obj kube.Object)
	PrepareCreate  func(ctx context.Context, obj kube.Object)
	PrepareUpdate  func(ctx context.Context, obj, old kube.Object)
	ValidateCreate func(ctx context.Context, obj kube.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old kube.Object) field.ErrorList
	WarnCreate     func(ctx context.Context, obj kube.Object) []string
	WarnUpdate     func(ctx context.Context, obj, old kube.Object) []string
	// CreateOnUpdate says that a PUT of a name that does not exist creates it.
	CreateOnUpdate bool
	// UnconditionalUpdate says that a PUT without resourceVersion overwrites.
	UnconditionalUpdate bool
}

// Subresource is one path below an object.
type Subresource struct {
	Name  string
	GVK   schema.GroupVersionKind // of the body: the kind itself for status, autoscaling/v1 Scale, v1 Binding, policy/v1 Eviction, v1 PodLogOptions
	Verbs []string

	// An object-shaped subresource (status): the body is the parent's type, Rules.PrepareUpdate keeps what it may not touch.
	Rules *Rules
	// Resets are the paths of what Rules.PrepareUpdate keeps (Kind.Resets); nil: what Kind.Resets says of the subresource's name.
	Resets [][]string
	// Owns are the paths that writes to it may become managers of, where these are fewer than those that they may not: then Resets is
	// nil. "*" is any item of a list.
	Owns [][]string

	// A derived one (scale): Get makes the body from the parent; Put applies a body to a copy of the parent, then the
	// parent's own Rules run.
	New func() runtime.Object
	Get func(parent kube.Object) (runtime.Object, error)
	Put func(parent kube.Object, body runtime.Object) error
	// Base is Get for a write: the body that a patch applies to, which may have more to fill in than one that is read. nil: Get.
	Base func(parent kube.Object) (runtime.Object, error)
	// Replicas is the path of the parent's field that a Scale's spec.replicas stands for: spec replicas. Who manages the one manages
	// the other. nil: the body is no Scale.
	Replicas []string

	// Connect is true for a stream (log, exec, attach, portforward), which the API server hands to the node.
	Connect bool
	// Proxy is true for a stream that is HTTP (proxy): any method, and all that is below its path, are the workload's.
	Proxy bool
	// A verb (binding, eviction, token): Handler answers creations, New makes their body. Verbs is "create". It is nil in the
	// declaration where the handler needs what only the hub has (Kinds.Handle).
	Handler Handler
}
