package registry

import (
	"context"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Result answers a request about one object.
type Result struct {
	// JSON is the object (or subresource body, or Status) as stored, apiVersion and kind included: to be sent as it is.
	JSON []byte
	// Object is the typed form of JSON when the registry has it without decoding; nil otherwise.
	Object   runtime.Object
	Created  bool     // 201 instead of 200
	Accepted bool     // 202: a deletion that was asked for with orphanDependents=false has begun; for all others that is 200
	Warnings []string // for Warning headers
}

// ListResult answers a list. Portions has what the client gets.
type ListResult struct {
	// Items are the JSON of each object as it is stored: in another version, or encrypted, while Show is not nil.
	Items []json.RawMessage
	// Show returns Items[from:to] in clear and in the version that was asked for. nil: Items are that.
	Show            func(ctx context.Context, from, to int) ([]json.RawMessage, error)
	ResourceVersion string
	Continue        string
	Remaining       *int64 // nil when a selector is set, or nothing remains
}

// WatchEvent is one event of a watch. For a bookmark JSON holds a bare object of the kind with its resourceVersion (and
// the initial-events-end annotation when it ends the initial list).
type WatchEvent struct {
	Type watch.EventType
	JSON []byte
}

// Watch is an open watch. Next returns at least one event, or an error: a Status (410 Gone when it fell behind or its
// revision is compacted), or ctx's. Close frees it; Next must not be called after it.
type Watch interface {
	Next(ctx context.Context) ([]WatchEvent, error)
	Close()
}

// Verbs are the operations on objects that the API offers. *Registry implements it; hub/apiserver consumes it. Errors are
// *apierrors.StatusError with upstream's texts. Bodies are typed objects of the target's kind (or of the subresource's)
// with TypeMeta set; strict decoding has been done by the caller.
type Verbs interface {
	Create(ctx context.Context, t resource.Target, body runtime.Object, opts *metav1.CreateOptions) (*Result, error)
	Get(ctx context.Context, t resource.Target, opts *metav1.GetOptions) (*Result, error)
	Update(ctx context.Context, t resource.Target, body runtime.Object, opts *metav1.UpdateOptions) (*Result, error)
	// Patch applies a merge patch, strategic merge patch, JSON patch or, creating what does not exist, an apply. validation is fieldValidation's value: the patched object is decoded
	// strictly when that asks for it.
	Patch(ctx context.Context, t resource.Target, pt types.PatchType, patch []byte, opts *metav1.PatchOptions) (*Result, error)
	Delete(ctx context.Context, t resource.Target, opts *metav1.DeleteOptions) (*Result, error)
	DeleteCollection(ctx context.Context, t resource.Target, opts *metav1.DeleteOptions, list *metav1.ListOptions) (*ListResult, error)
	List(ctx context.Context, t resource.Target, opts *metav1.ListOptions) (*ListResult, error)
	Watch(ctx context.Context, t resource.Target, opts *metav1.ListOptions) (Watch, error)
	// Connect asks admission for a stream of an object. options are those of the subresource.
	Connect(ctx context.Context, t resource.Target, options runtime.Object) error
}

// Admission may change or refuse a write; hub/admission's chain is one. Both are called with a copy that may be changed
// (Mutate) or only read (Validate); old is nil for a creation, obj is nil for a deletion.
type Admission interface {
	Mutate(ctx context.Context, a *AdmissionRequest) error
	Validate(ctx context.Context, a *AdmissionRequest) error
}

// AdmissionRequest is a write as admission sees it: the request with its user, and the object that it would store.
type AdmissionRequest struct {
	resource.Request                // with the Working kind, in whose version the objects are
	As               *resource.Kind // the kind that the client named; Kind is its Working kind
	Operation        Operation      // CREATE for everything that is POSTed, also to a subresource
	Object           kube.Object    // the object as it would be stored, nil for Delete and Connect
	Old              kube.Object    // nil for Create
	Body             runtime.Object // the subresource's body (Binding, Eviction, Scale, PodExecOptions), otherwise nil; Mutate may change it
	Options          runtime.Object // the verb's, where they say more than Request does; otherwise nil
}

// Operation is the verb of a write as admission knows it.
type Operation string

const (
	OpCreate Operation = "CREATE"
	OpUpdate Operation = "UPDATE"
	OpDelete Operation = "DELETE"
	// OpConnect opens a stream (exec, attach, port-forward) or a proxy.
	OpConnect Operation = "CONNECT"
)
