package resource

import (
	"context"
	"fmt"
	"reflect"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"petrel.dev/petrel/internal/kube"
)

// strategy is what upstream calls one: the rules of a kind in terms of its internal type I. Nil functions do nothing.
type strategy[I any] struct {
	prepareCreate  func(obj *I)
	prepareUpdate  func(obj, old *I) // old is shared: read-only, and whatever moves into obj is copied
	validateCreate func(obj *I) field.ErrorList
	validateUpdate func(obj, old *I) field.ErrorList
	warnCreate     func(ctx context.Context, obj *I) []string
	warnUpdate     func(ctx context.Context, obj, old *I) []string
	createOnUpdate bool
	// conditionalUpdate says that a PUT must carry a resourceVersion.
	conditionalUpdate bool
}

// rules turns a strategy into Rules on the stored type.
func (s strategy[I]) rules() Rules {
	r := Rules{
		Default:             func(obj kube.Object) { legacyscheme.Scheme.Default(obj) },
		CreateOnUpdate:      s.createOnUpdate,
		UnconditionalUpdate: !s.conditionalUpdate,
	}
	if s.prepareCreate != nil {
		r.PrepareCreate = func(_ context.Context, obj kube.Object) {
			in := internal[I](obj)
			s.prepareCreate(in)
			external(in, obj)
		}
	}
	if s.prepareUpdate != nil {
		r.PrepareUpdate = func(_ context.Context, obj, old kube.Object) {
			in := internal[I](obj)
			s.prepareUpdate(in, internal[I](old))
			external(in, obj)
		}
	}
	if s.validateCreate != nil {
		r.ValidateCreate = func(_ context.Context, obj kube.Object) field.ErrorList {
			return s.validateCreate(internal[I](obj))
		}
	}
	if s.validateUpdate != nil {
		r.ValidateUpdate = func(_ context.Context, obj, old kube.Object) field.ErrorList {
			return s.validateUpdate(internal[I](obj), internal[I](old))
		}
	}
	if s.warnCreate != nil {
		r.WarnCreate = func(ctx context.Context, obj kube.Object) []string { return s.warnCreate(ctx, internal[I](obj)) }
	}
	if s.warnUpdate != nil {
		r.WarnUpdate = func(ctx context.Context, obj, old kube.Object) []string {
			return s.warnUpdate(ctx, internal[I](obj), internal[I](old))
		}
	}
	return r
}

// status declares the "status" subresource with the rules that its updates follow.
func (s strategy[I]) status(k *Kind) *Subresource { return s.subresource(k, "status") }

// subresource declares one whose body is the kind itself.
func (s strategy[I]) subresource(k *Kind, name string) *Subresource {
	r := s.rules()
	return &Subresource{Name: name, GVK: k.GVK, Verbs: []string{"get", "patch", "update"}, Rules: &r}
}

// internal converts obj to its internal type. The two share memory where their layouts agree.
func internal[I any](obj runtime.Object) *I {
	out := new(I)
	if err := legacyscheme.Scheme.Convert(obj, out, nil); err != nil {
		panic(&conversionError{obj.GetObjectKind().GroupVersionKind(), err})
	}
	return out
}

// conversionError is the panic of an object that has no internal form. Types always have one; values may not: upstream
// keeps fields of older versions in annotations, and clients may write anything into those.
type conversionError struct {
	gvk kube.GVK
	err error
}

func (e *conversionError) Error() string {
	return fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", e.gvk.Kind, e.gvk.Version, e.gvk.Kind, e.err)
}

// RecoverConversion, deferred around the use of Rules on an object that a client sent, turns the panic of an object that cannot be
// converted into a BadRequest. Other panics go on.
func RecoverConversion(err *error) {
	switch p := recover().(type) {
	case nil:
	case *conversionError:
		*err = apierrors.NewBadRequest(p.Error())
	default:
		panic(p)
	}
}

// external converts back, into the object that the internal one was made from. It starts from nothing, because fields that
// the internal type does not have (a Secret's stringData) have been merged already.
func external(in any, obj kube.Object) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	out := reflect.New(reflect.TypeOf(obj).Elem())
	if err := legacyscheme.Scheme.Convert(in, out.Interface(), nil); err != nil {
		panic(&conversionError{obj.GetObjectKind().GroupVersionKind(), err})
	}
	reflect.ValueOf(obj).Elem().Set(out.Elem())
	obj.GetObjectKind().SetGroupVersionKind(gvk)
}

// countChange raises the generation of an object if what clients want of it (its spec) differs from before.
func countChange(now, before *metav1.ObjectMeta, spec, oldSpec any) {
	if !apiequality.Semantic.DeepEqual(spec, oldSpec) {
		now.Generation = before.Generation + 1
	}
}
