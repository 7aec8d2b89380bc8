package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// groupKindOfResource returns the kind's group with its plural in place of the kind, as some of upstream's errors have it.
func groupKindOfResource(k *resource.Kind) schema.GroupKind {
	return schema.GroupKind{Group: k.GVK.Group, Kind: k.Plural}
}

// Get returns the object's stored bytes, or a subresource's body.
func (r *Registry) Get(ctx context.Context, t resource.Target, opts *metav1.GetOptions) (*Result, error) {
	sub, err := served(t, "get")
	if err != nil {
		return nil, err
	}
	if opts != nil {
		if err := r.reached(ctx, t.Kind, opts.ResourceVersion); err != nil {
			return nil, err
		}
	}
	if t.Kind.Objects != nil {
		return computedGet(t)
	}
	key := resource.Key(t.Kind, t.Namespace, t.Name)
	e, ok, err := r.store.Get(ctx, key)
	if err != nil {
		return nil, storeFailure(t.Kind, "get", err)
	}
	if !ok {
		return nil, notFound(t.Kind, t.Name)
	}
	if sub != nil && sub.Get != nil {
		cur, err := r.current(ctx, t.Kind, key)
		if err != nil {
			return nil, err
		}
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		return derived(sub, cur.obj)
	}
	res := &Result{JSON: e.Value}
	if o, ok := r.objects.At(key, e.Rev); ok {
		res.Object = o
	}
	return r.asViewed(ctx, t.Kind, key, e.Rev, res)
}

// reached refuses a resourceVersion that the store has not reached: the hub may have been restored from a backup, and
// a wait would never end.
func (r *Registry) reached(ctx context.Context, k *resource.Kind, version string) error {
	rev, err := objects.ParseRevision(version)
	if err != nil {
		return badRevision(version, err)
	}
	now, err := r.store.Revision(ctx)
	if err != nil {
		return storeFailure(k, "get", err)
	}
	if rev > now {
		return tooLarge(rev, now)
	}
	return nil
}

// derived returns a subresource's body, made from its parent.
func derived(sub *resource.Subresource, parent kube.Object) (*Result, error) {
	body, err := sub.Get(parent)
	if err != nil {
		return nil, statusOr500(err)
	}
	body.GetObjectKind().SetGroupVersionKind(sub.GVK)
	b, err := encodeBody(body)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &Result{JSON: b, Object: body}, nil
}

// bodyOf returns the body that a write of a subresource starts from.
func bodyOf(sub *resource.Subresource, parent kube.Object) (runtime.Object, error) {
	get := sub.Base
	if get == nil {
		get = sub.Get
	}
	body, err := get(parent)
	if err != nil {
		return nil, statusOr500(err)
	}
	body.GetObjectKind().SetGroupVersionKind(sub.GVK)
	return body, nil
}

// updateDerived applies a body such as a Scale to a copy of its parent, which is then updated like any object.
func (r *Registry) updateDerived(ctx context.Context, q *request, body runtime.Object) (*Result, error) {
	if meta, ok := asKube(body); ok {
		if err := checkName(q.Target, meta); err != nil {
			return nil, err
		}
	}
	return r.changeDerived(ctx, q, func(*current, kube.Object) (runtime.Object, error) { return body, nil })
}

// changeDerived commits the change that next returns for a subresource's body. next also gets the copy of the parent that will be
// written.
func (r *Registry) changeDerived(ctx context.Context, q *request, next func(*current, kube.Object) (runtime.Object, error)) (*Result, error) {
	p, res, err := r.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(q.Kind, q.Name)
		}
		obj := cur.obj.DeepCopyObject().(kube.Object)
		body, err := next(cur, obj)
		if err != nil {
			return nil, err
		}
		if err := r.trackDerived(ctx, q, obj, body); err != nil {
			return nil, err
		}
		if meta, ok := asKube(body); ok {
			if err := q.sameUID(cur, meta.GetUID()); err != nil {
				return nil, err
			}
			if rv := meta.GetResourceVersion(); rv != "" {
				obj.SetResourceVersion(rv)
			}
		}
		if err := q.sub.Put(obj, body); err != nil {
			return nil, statusOr500(err)
		}
		return r.planUpdate(ctx, q, cur, obj, body)
	})
	if err != nil {
		return nil, err
	}
	parent, ok := res.Object.(kube.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%s has no typed form", q.Subresource))
	}
	out, err := derived(q.sub, parent)
	if err != nil {
		return nil, err
	}
	out.Warnings = p.warnings
	return out, nil
}

// statusOr500 returns err when it is a Status, and otherwise a 500.
func statusOr500(err error) error {
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return apierrors.NewInternalError(err)
}

// success returns the Status that answers a request without an object.
func success(code int32, details *metav1.StatusDetails) (*Result, error) {
	s := &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess, Details: details, Code: code,
	}
	b, err := encodeBody(s)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &Result{JSON: b, Object: s, Created: code == 201}, nil
}

func deletedDetails(k *resource.Kind, name string, uid types.UID) *metav1.StatusDetails {
	return &metav1.StatusDetails{Name: name, Group: k.GVK.Group, Kind: k.Plural, UID: uid}
}
