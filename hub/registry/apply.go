package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/registry/status"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// apply makes the object have the fields of a configuration, and no more those that its manager applied before: server-side apply.
// An object that does not exist is created.
func (r *Registry) apply(ctx context.Context, q *request, pt types.PatchType, body []byte, opts *metav1.PatchOptions) (*Result, error) {
	done, err := r.turn(ctx, len(body))
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := fieldmanager.Decode(pt, body, opts.FieldValidation)
	if err != nil {
		return nil, err
	}
	c.Force = opts.Force != nil && *opts.Force
	if q.sub != nil && q.sub.Put != nil {
		res, err := r.changeDerived(ctx, q, func(cur *current, parent kube.Object) (runtime.Object, error) {
			return r.appliedBody(ctx, q, cur, parent, c)
		})
		return judged(res, c, err)
	}
	_, res, err := r.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return r.createByApply(ctx, q, c)
		}
		obj, err := r.applied(ctx, q, cur.obj, c)
		if err != nil {
			return nil, err
		}
		return r.planUpdate(ctx, q, cur, obj, nil)
	})
	return judged(res, c, err)
}

// applied returns what the configuration makes of live, nil for an object that does not exist.
func (r *Registry) applied(ctx context.Context, q *request, live kube.Object, c *fieldmanager.Configuration) (_ kube.Object, err error) {
	defer resource.RecoverConversion(&err)
	obj, err := r.fields.Apply(ctx, &q.Request, q.kind, live, c)
	if err != nil {
		return nil, status.Or(err)
	}
	if q.kind.Unstructured() {
		unknown, err := q.kind.Codec.Conform(obj)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		c.Dropped(unknown)
	}
	if _, err := c.Verdict(); err != nil {
		return nil, err
	}
	if uid := obj.GetUID(); live == nil && uid != "" {
		return nil, conflict(q.Kind, q.Name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	return obj, checkName(q.Target, obj)
}

// createByApply plans the creation of an object that a configuration describes.
func (r *Registry) createByApply(ctx context.Context, q *request, c *fieldmanager.Configuration) (*plan, error) {
	if q.sub != nil {
		return nil, notFound(q.Kind, q.Name)
	}
	obj, err := r.applied(ctx, q, nil, c)
	if err != nil {
		return nil, err
	}
	if err := mayCreate(ctx); err != nil {
		return nil, err
	}
	obj.SetResourceVersion("") // there is none that it could be compared with
	return r.planCreate(ctx, q, obj)
}

// appliedBody returns what the configuration makes of the body of a derived subresource.
func (r *Registry) appliedBody(ctx context.Context, q *request, cur *current, parent kube.Object, c *fieldmanager.Configuration) (runtime.Object, error) {
	now, err := bodyOf(q.sub, cur.obj)
	if err != nil {
		return nil, err
	}
	body, err := r.fields.ApplyScale(ctx, &q.Request, q.kind, parent, now, c)
	if err != nil {
		return nil, status.Or(err)
	}
	if _, err := c.Verdict(); err != nil {
		return nil, err
	}
	if meta, ok := asKube(body); ok {
		return body, checkName(q.Target, meta)
	}
	return body, nil
}

type createCheckKey struct{}

// WithCreateCheck returns a context in which an update or a patch that is about to create an object calls check before: it was
// authorized as an update or a patch. Requests without a check, those of the hub's own parts, may create.
func WithCreateCheck(ctx context.Context, check func(context.Context) error) context.Context {
	return context.WithValue(ctx, createCheckKey{}, check)
}

func mayCreate(ctx context.Context) error {
	if check, ok := ctx.Value(createCheckKey{}).(func(context.Context) error); ok {
		return check(ctx)
	}
	return nil
}

// judged adds the warnings that a configuration deserves to its result.
func judged(res *Result, c *fieldmanager.Configuration, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	warnings, err := c.Verdict()
	return warn(res, warnings), err
}

// trackDerived records in parent, the copy that is written, who sets a subresource's body, unless an apply has done so.
func (r *Registry) trackDerived(ctx context.Context, q *request, parent kube.Object, body runtime.Object) error {
	if q.apply || !fieldmanager.Tracked(parent) {
		return nil
	}
	before, err := bodyOf(q.sub, parent)
	if err != nil {
		return err
	}
	if err := r.fields.Scaled(ctx, &q.Request, parent, before, body); err != nil {
		return status.Or(err)
	}
	return nil
}
