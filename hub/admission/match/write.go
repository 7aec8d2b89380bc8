// Package match shows a write to what users configure, webhooks and policies, and decides which of them the write concerns.
//
//	registry.AdmissionRequest ─► Write ─┬─ Scope.Match: rules, selectors ─► Hit: the version that the configuration names
//	                                    ├─ As: the objects in that version
//	                                    └─ Replace: what a mutation made of the object, back into the request
//
// A Write is upstream's admission.Attributes, so that upstream's libraries for CEL expressions take it.
package match

import (
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds are the served kinds; *resource.Kinds is one.
type Kinds interface {
	All() []*resource.Kind
	Lookup(gvk kube.GVK) (*resource.Kind, bool)
}

// Write is one write on its way through admission. It belongs to the request's goroutine, except that its views may be read by many.
type Write struct {
	request *registry.AdmissionRequest
	kinds   Kinds
	objects control.Reader
	note    Note // nil: nothing is noted
	// views are the objects in other versions, made when first asked for. Replace drops them.
	views map[schema.GroupVersionKind]*admission.VersionedAttributes
}

var _ admission.Attributes = (*Write)(nil)

// Note takes an annotation for the audit log, which has it if the request is recorded at level or above. It may be called by any
// goroutine.
type Note func(level audit.Level, key, value string)

// New returns a as webhooks and policies see it. note takes annotations for the audit log; nil: they are dropped.
func New(a *registry.AdmissionRequest, kinds Kinds, objects control.Reader, note Note) *Write {
	return &Write{request: a, kinds: kinds, objects: objects, note: note}
}

// Request returns what w was made of.
func (w *Write) Request() *registry.AdmissionRequest { return w.request }

// sub returns the subresource of the write; nil: the object itself.
func (w *Write) sub() *resource.Subresource {
	return w.request.Kind.Subresources[w.request.Subresource]
}

// hasBody reports whether the write is about the body of a subresource (a Scale, a Binding, options of exec), not about the object.
func (w *Write) hasBody() bool { return w.request.Body != nil && w.sub() != nil }

// GetName implements admission.Attributes.
func (w *Write) GetName() string {
	if w.request.Name == "" && w.request.Object != nil {
		return w.request.Object.GetName()
	}
	return w.request.Name
}

// GetNamespace implements admission.Attributes. A Namespace is in itself.
func (w *Write) GetNamespace() string {
	if w.request.Kind.GVK == kube.Namespace {
		return w.GetName()
	}
	return w.request.Namespace
}

// GetResource implements admission.Attributes.
func (w *Write) GetResource() schema.GroupVersionResource { return w.request.As.GVR() }

// GetSubresource implements admission.Attributes.
func (w *Write) GetSubresource() string { return w.request.Subresource }

// GetOperation implements admission.Attributes.
func (w *Write) GetOperation() admission.Operation { return admission.Operation(w.request.Operation) }

// GetKind implements admission.Attributes.
func (w *Write) GetKind() schema.GroupVersionKind { return w.kindOf(w.request.As) }

// kindOf returns the kind of the write's objects where k is the version of the resource.
func (w *Write) kindOf(k *resource.Kind) schema.GroupVersionKind {
	if sub := w.sub(); sub != nil && sub.New != nil {
		return sub.GVK
	}
	return k.GVK
}

// GetOperationOptions implements admission.Attributes.
func (w *Write) GetOperationOptions() runtime.Object {
	if o, ok := w.request.Options.(*metav1.DeleteOptions); ok {
		own := *o
		own.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: metav1.SchemeGroupVersion.String()}
		return &own
	}
	var dry []string
	if w.request.DryRun {
		dry = []string{metav1.DryRunAll}
	}
	meta := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{Kind: kind, APIVersion: metav1.SchemeGroupVersion.String()}
	}
	switch w.request.Operation {
	case registry.OpCreate:
		return &metav1.CreateOptions{TypeMeta: meta("CreateOptions"), DryRun: dry, FieldManager: w.request.Manager, FieldValidation: w.request.FieldValidation}
	case registry.OpUpdate:
		return &metav1.UpdateOptions{TypeMeta: meta("UpdateOptions"), DryRun: dry, FieldManager: w.request.Manager, FieldValidation: w.request.FieldValidation}
	case registry.OpDelete:
		return &metav1.DeleteOptions{TypeMeta: meta("DeleteOptions"), DryRun: dry, Preconditions: w.request.Preconditions}
	}
	return nil
}

// IsDryRun implements admission.Attributes.
func (w *Write) IsDryRun() bool { return w.request.DryRun }

// GetObject implements admission.Attributes: the object, or the body of the subresource, as it would be written.
func (w *Write) GetObject() runtime.Object {
	switch {
	case w.hasBody():
		return w.request.Body
	case w.request.Object == nil:
		return nil
	}
	return w.request.Object
}

// GetOldObject implements admission.Attributes.
func (w *Write) GetOldObject() runtime.Object {
	old := w.request.Old
	if old == nil || w.request.Operation == registry.OpConnect {
		return nil
	}
	if !w.hasBody() {
		return old
	}
	if get := w.sub().Get; get != nil {
		if body, err := get(old); err == nil {
			return body
		}
	}
	return nil
}

// GetUserInfo implements admission.Attributes.
func (w *Write) GetUserInfo() user.Info {
	u := w.request.User
	return &user.DefaultInfo{Name: u.Name, UID: u.UID, Groups: u.Groups, Extra: u.Extra}
}

// AddAnnotation implements admission.Attributes.
func (w *Write) AddAnnotation(key, value string) error {
	return w.AddAnnotationWithLevel(key, value, audit.LevelMetadata)
}

// AddAnnotationWithLevel implements admission.Attributes.
func (w *Write) AddAnnotationWithLevel(key, value string, level audit.Level) error {
	if w.note != nil {
		w.note(level, key, value)
	}
	return nil
}

// GetReinvocationContext implements admission.Attributes. Who mutates again is decided elsewhere.
func (w *Write) GetReinvocationContext() admission.ReinvocationContext { return nil }

// As returns the write with its objects as of kind gvk, which a Hit named. The result is shared: read-only.
func (w *Write) As(ctx context.Context, gvk schema.GroupVersionKind) (*admission.VersionedAttributes, error) {
	if v := w.views[gvk]; v != nil {
		return v, nil
	}
	v := &admission.VersionedAttributes{Attributes: w, VersionedKind: gvk}
	var err error
	if v.VersionedObject, err = w.convert(ctx, w.GetObject(), gvk); err != nil {
		return nil, err
	}
	if v.VersionedOldObject, err = w.convert(ctx, w.GetOldObject(), gvk); err != nil {
		return nil, err
	}
	if w.views == nil {
		w.views = map[schema.GroupVersionKind]*admission.VersionedAttributes{}
	}
	w.views[gvk] = v
	return v, nil
}

// convert returns obj as of kind gvk; nil for nil.
func (w *Write) convert(ctx context.Context, obj runtime.Object, gvk schema.GroupVersionKind) (runtime.Object, error) {
	if obj == nil {
		return nil, nil
	}
	if w.hasBody() {
		return WithKind(obj, gvk), nil
	}
	out, err := w.between(ctx, obj.(kube.Object), w.request.Kind.GVK, gvk)
	if err != nil {
		return nil, err
	}
	return WithKind(out, gvk), nil
}

// WithKind returns obj, which may be shared, with its apiVersion and kind: objects that the hub's own parts write have none. The
// result may share obj's memory.
func WithKind(obj runtime.Object, gvk schema.GroupVersionKind) runtime.Object {
	if !obj.GetObjectKind().GroupVersionKind().Empty() {
		return obj
	}
	out := reflect.New(reflect.TypeOf(obj).Elem())
	out.Elem().Set(reflect.ValueOf(obj).Elem())
	named := out.Interface().(runtime.Object)
	named.GetObjectKind().SetGroupVersionKind(gvk)
	return named
}

// between converts an object, which is only read, from one version of the write's resource to another, by way of the stored one.
func (w *Write) between(ctx context.Context, obj kube.Object, from, to schema.GroupVersionKind) (kube.Object, error) {
	if from == to {
		return obj, nil
	}
	a, ok := w.kinds.Lookup(from)
	if !ok {
		return nil, fmt.Errorf("%s is not served", from)
	}
	b, ok := w.kinds.Lookup(to)
	if !ok {
		return nil, fmt.Errorf("%s is not served", to)
	}
	if a.Stored() != a {
		var err error
		if obj, err = a.ToStored(ctx, obj.DeepCopyObject().(kube.Object)); err != nil {
			return nil, err
		}
	}
	out, err := b.FromStored(ctx, obj)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// Decode returns data, JSON of the write's object as of kind gvk after a patch, as an object of that kind. Fields that the kind
// does not have are dropped.
func (w *Write) Decode(data []byte, gvk schema.GroupVersionKind) (runtime.Object, error) {
	if w.hasBody() {
		body := w.sub().New()
		if err := unmarshal(data, body); err != nil {
			return nil, err
		}
		body.GetObjectKind().SetGroupVersionKind(gvk)
		return body, nil
	}
	k, ok := w.kinds.Lookup(gvk)
	if !ok {
		return nil, fmt.Errorf("%s is not served", gvk)
	}
	return k.Codec.Decode(data)
}

// Replace makes next, which has the kind of one of w's views, the object of the write. It takes next over. An object that has been
// moved to another namespace is refused.
func (w *Write) Replace(ctx context.Context, next runtime.Object) error {
	w.views = nil
	a := w.request
	if w.hasBody() {
		assign(a.Body, next)
		if put := w.sub().Put; put != nil {
			return put(a.Object, a.Body)
		}
		return nil
	}
	obj, ok := next.(kube.Object)
	if !ok || a.Object == nil {
		return apierrors.NewInternalError(fmt.Errorf("%T is not the object of a %s", next, a.Operation))
	}
	made, err := w.between(ctx, obj, obj.GetObjectKind().GroupVersionKind(), a.Kind.GVK)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if a.Operation == registry.OpCreate && made.GetNamespace() != a.Object.GetNamespace() {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if def := a.As.Rules.Default; def != nil {
		def(made)
	}
	made.GetObjectKind().SetGroupVersionKind(a.Kind.GVK)
	if a.Operation == registry.OpCreate { // what only the hub sets has been removed before
		made.SetDeletionTimestamp(nil)
		made.SetDeletionGracePeriodSeconds(nil)
		made.SetSelfLink("")
	}
	assign(a.Object, made)
	return nil
}

// assign replaces what to points at: the request's other readers hold the pointer.
func assign(to, from runtime.Object) {
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem())
}

// unmarshal reads JSON as upstream's decoders do: case-sensitive, whole numbers as such.
func unmarshal(data []byte, into runtime.Object) error {
	return kjson.UnmarshalCaseSensitivePreserveInts(data, into)
}
