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

// Strategy is what upstream calls one: the rules of a kind in terms of its internal type I. Nil functions do nothing.
type Strategy[I any] struct {
	PrepareCreate  func(obj *I)
	PrepareUpdate  func(obj, old *I) // old is shared: read-only, and whatever moves into obj is copied
	ValidateCreate func(obj *I) field.ErrorList
	ValidateUpdate func(obj, old *I) field.ErrorList
	WarnCreate     func(ctx context.Context, obj *I) []string
	WarnUpdate     func(ctx context.Context, obj, old *I) []string
	CreateOnUpdate bool
	// ConditionalUpdate says that a PUT must carry a resourceVersion.
	ConditionalUpdate bool
}

// Rules turns a strategy into Rules on the stored type.
func (s Strategy[I]) Rules() Rules {
	r := Rules{
		Default:             func(obj kube.Object) { legacyscheme.Scheme.Default(obj) },
		CreateOnUpdate:      s.CreateOnUpdate,
		UnconditionalUpdate: !s.ConditionalUpdate,
	}
	if s.PrepareCreate != nil {
		r.PrepareCreate = func(_ context.Context, obj kube.Object) {
			in := Internal[I](obj)
			s.PrepareCreate(in)
			External(in, obj)
		}
	}
	if s.PrepareUpdate != nil {
		r.PrepareUpdate = func(ctx context.Context, obj, old kube.Object) {
			in := Internal[I](obj)
			s.PrepareUpdate(in, final[I](ctx, old))
			External(in, obj)
		}
	}
	if s.ValidateCreate != nil {
		r.ValidateCreate = func(ctx context.Context, obj kube.Object) field.ErrorList {
			return s.ValidateCreate(final[I](ctx, obj))
		}
	}
	if s.ValidateUpdate != nil {
		r.ValidateUpdate = func(ctx context.Context, obj, old kube.Object) field.ErrorList {
			return s.ValidateUpdate(final[I](ctx, obj), final[I](ctx, old))
		}
	}
	if s.WarnCreate != nil {
		r.WarnCreate = func(ctx context.Context, obj kube.Object) []string { return s.WarnCreate(ctx, final[I](ctx, obj)) }
	}
	if s.WarnUpdate != nil {
		r.WarnUpdate = func(ctx context.Context, obj, old kube.Object) []string {
			return s.WarnUpdate(ctx, final[I](ctx, obj), final[I](ctx, old))
		}
	}
	return r
}

// Status declares the "status" subresource with the rules that its updates follow.
func (s Strategy[I]) Status(k *Kind) *Subresource { return s.Subresource(k, "status") }

// Subresource declares one whose body is the kind itself.
func (s Strategy[I]) Subresource(k *Kind, name string) *Subresource {
	r := s.Rules()
	return &Subresource{Name: name, GVK: k.GVK, Verbs: []string{"get", "patch", "update"}, Rules: &r}
}

// Internal converts obj to its internal type. The two share memory where their layouts agree.
func Internal[I any](obj runtime.Object) *I {
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

// External converts back, into the object that the internal one was made from. It starts from nothing, because fields that
// the internal type does not have (a Secret's stringData) have been merged already; what the two share lies behind pointers.
func External(in any, obj kube.Object) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	reflect.ValueOf(obj).Elem().SetZero()
	if err := legacyscheme.Scheme.Convert(in, obj, nil); err != nil {
		panic(&conversionError{gvk, err})
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
}

// CountChange raises the generation of an object if what clients want of it (its spec) differs from before.
func CountChange(now, before *metav1.ObjectMeta, spec, oldSpec any) {
	if !apiequality.Semantic.DeepEqual(spec, oldSpec) {
		now.Generation = before.Generation + 1
	}
}
