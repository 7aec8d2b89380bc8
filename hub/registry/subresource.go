package registry

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// subresource finds what t names below its kind; nil for the object itself.
func subresource(t Target, verb string) (*resource.Subresource, error) {
	if t.Subresource == "" {
		return nil, nil
	}
	s := storedKind(t.Kind).Subresources[t.Subresource]
	if s == nil {
		return nil, apierrors.NewGenericServerResponse(404, verb, groupResource(t.Kind), t.Name, "the server could not find the requested resource", 0, true)
	}
	if len(s.Verbs) > 0 && !slices.Contains(s.Verbs, verb) {
		gr := groupResource(t.Kind)
		gr.Resource += "/" + t.Subresource
		return nil, apierrors.NewMethodNotSupported(gr, verb)
	}
	return s, nil
}

func groupKindOfResource(k *resource.Kind) schema.GroupKind {
	return schema.GroupKind{Group: k.GVK.Group, Kind: k.Plural}
}

// Get returns the object's stored bytes, or a subresource's body.
func (r *Registry) Get(ctx context.Context, t Target, opts *metav1.GetOptions) (*Result, error) {
	sub, err := subresource(t, "get")
	if err != nil {
		return nil, err
	}
	if opts != nil {
		if err := r.reached(ctx, t.Kind, opts.ResourceVersion); err != nil {
			return nil, err
		}
	}
	key, told := r.tellKey(t)
	if !told {
		key = resource.Key(t.Kind, t.Namespace, t.Name)
	}
	e, ok, err := r.store.Get(ctx, key)
	if err != nil {
		return nil, storeFailure(t.Kind, "get", err)
	}
	if !ok {
		return nil, notFound(t.Kind, t.Name)
	}
	if told {
		b, err := r.view(t.Kind, key, e.Rev, e.Value)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		return &Result{JSON: b}, nil
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
	if o, ok := r.cache.at(key, e.Rev); ok {
		res.Object = o
	}
	return r.asViewed(t, key, e.Rev, res)
}

// reached refuses a resourceVersion that the store has not reached: the hub may have been restored from a backup, and
// waiting would be for ever.
func (r *Registry) reached(ctx context.Context, k *resource.Kind, version string) error {
	rev, err := parseRevision(version)
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

// derived makes a subresource's body from its parent.
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

// updateDerived applies a body such as a Scale to a copy of its parent, which then goes the way of any update.
func (r *Registry) updateDerived(ctx context.Context, t Target, sub *resource.Subresource, body runtime.Object, dry bool) (*Result, error) {
	meta, hasMeta := asKube(body)
	if hasMeta {
		if err := checkName(t, meta); err != nil {
			return nil, err
		}
	}
	return r.changeDerived(ctx, t, sub, dry, func(*current) (runtime.Object, error) { return body, nil })
}

// changeDerived commits what next makes of a subresource's body.
func (r *Registry) changeDerived(ctx context.Context, t Target, sub *resource.Subresource, dry bool, next func(*current) (runtime.Object, error)) (*Result, error) {
	p, res, err := r.change(ctx, t, dry, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		body, err := next(cur)
		if err != nil {
			return nil, err
		}
		obj := cur.obj.DeepCopyObject().(kube.Object)
		if meta, ok := asKube(body); ok {
			if uid := meta.GetUID(); uid != "" && uid != obj.GetUID() {
				return nil, uidMismatch(t.Kind, t.Name, uid, obj.GetUID())
			}
			if rv := meta.GetResourceVersion(); rv != "" {
				obj.SetResourceVersion(rv)
			}
		}
		if err := sub.Put(obj, body); err != nil {
			return nil, statusOr500(err)
		}
		return r.planUpdate(ctx, update{t: t, sub: sub, cur: cur, obj: obj, body: body, dry: dry})
	})
	if err != nil {
		return nil, err
	}
	parent, ok := res.Object.(kube.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%s has no typed form", t.Subresource))
	}
	out, err := derived(sub, parent)
	if err != nil {
		return nil, err
	}
	out.Warnings = p.warnings
	return out, nil
}

// statusOr500 keeps an error that already is a Status.
func statusOr500(err error) error {
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return apierrors.NewInternalError(err)
}

// createSub runs the subresources that are POSTed to.
func (r *Registry) createSub(ctx context.Context, t Target, body runtime.Object, dry bool) (*Result, error) {
	if _, err := subresource(t, "create"); err != nil {
		return nil, err
	}
	switch t.Subresource {
	case "binding":
		return r.bind(ctx, t, body, dry)
	case "eviction":
		return r.evict(ctx, t, body, dry)
	case "token":
		return r.issueToken(ctx, t, body, dry)
	}
	gr := groupResource(t.Kind)
	gr.Resource += "/" + t.Subresource
	return nil, apierrors.NewMethodNotSupported(gr, "create")
}

// success is the Status that answers a request with nothing else to say.
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
