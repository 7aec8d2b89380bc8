package registry

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/registry/status"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// handle returns the answer of the request's Handler.
func (r *Registry) handle(ctx context.Context, q *request, body runtime.Object) (*Result, error) {
	h := q.handler()
	if h == nil {
		return nil, q.unhandled()
	}
	var warnings []string
	if q.sub == nil {
		var err error
		if warnings, err = r.review(ctx, q, body); err != nil {
			return nil, err
		}
	}
	a, err := h.Handle(ctx, &q.Request, body, &handling{r: r, q: q})
	if err != nil {
		return nil, status.Or(err)
	}
	res, err := success(201, nil)
	if a.Object != nil {
		var b []byte
		b, err = encodeBody(a.Object)
		res = &Result{JSON: b, Object: a.Object, Created: true}
	}
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	res.Warnings = append(warnings, a.Warnings...)
	return res, nil
}

// unhandled refuses what has no Handler: nothing else could answer it.
func (q *request) unhandled() error {
	gr := q.Kind.Resource()
	if q.Subresource != "" {
		gr.Resource += "/" + q.Subresource
	}
	return apierrors.NewMethodNotSupported(gr, "create")
}

// review does everything of a creation but the storing: defaults, the kind's rules, admission. It returns warnings.
func (r *Registry) review(ctx context.Context, q *request, body runtime.Object) (warnings []string, err error) {
	defer resource.RecoverConversion(&err)
	obj, err := q.object(body)
	if err != nil {
		return nil, err
	}
	if err := FitNamespace(q.kind, q.Namespace, obj); err != nil {
		return nil, err
	}
	rules := q.rules()
	obj.SetManagedFields(nil)
	warnings = r.prepare(q, obj)
	return warnings, r.admit(ctx, q.admission(OpCreate, obj, nil), func() error {
		if rules.PrepareCreate != nil {
			rules.PrepareCreate(ctx, obj)
		}
		if rules.ValidateCreate != nil {
			if errs := rules.ValidateCreate(ctx, obj); len(errs) > 0 {
				return invalid(q.kind, obj.GetName(), errs)
			}
		}
		if rules.WarnCreate != nil {
			warnings = append(warnings, rules.WarnCreate(ctx, obj)...)
		}
		return nil
	})
}

// planHandled returns the plan that the request's Handler makes, as one of the writes of a commit.
func (r *Registry) planHandled(ctx context.Context, q *request, body runtime.Object) (*plan, error) {
	if q.handler() == nil {
		return nil, q.unhandled()
	}
	var plans []*plan
	if _, err := q.handler().Handle(ctx, &q.Request, body, &handling{r: r, q: q, plans: &plans}); err != nil {
		return nil, status.Or(err)
	}
	if len(plans) != 1 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s cannot be part of a commit", q.Subresource))
	}
	return plans[0], nil
}

// handling is resource.Objects for one request.
type handling struct {
	r     *Registry
	q     *request
	plans *[]*plan // where changes go that are committed with others; nil: each is committed at once
}

var _ resource.Objects = (*handling)(nil)

// change adds prepare's plan to h.plans, or commits it when there are none.
func (h *handling) change(ctx context.Context, q *request, prepare func(*current) (*plan, error)) error {
	if h.plans == nil {
		_, _, err := h.r.change(ctx, q, prepare)
		return err
	}
	cur, err := h.r.current(ctx, q.Kind, resource.Key(q.Kind, q.Namespace, q.Name))
	if err != nil {
		return err
	}
	p, err := prepare(cur)
	if err != nil {
		return err
	}
	*h.plans = append(*h.plans, p)
	return nil
}

// of returns the handler's request, to which it may have added preconditions, in the registry's form.
func (h *handling) of(q *resource.Request) *request {
	if q.Kind != h.q.Kind { // the handler acts on an object of another kind
		return &request{Request: *q, kind: q.Kind.Working(), sub: q.Kind.Subresources[q.Subresource]}
	}
	return &request{Request: *q, kind: h.q.kind, sub: h.q.sub}
}

// Get implements resource.Objects.
func (h *handling) Get(ctx context.Context, gvk kube.GVK, namespace, name string) (kube.Object, error) {
	k := h.r.kindFor(gvk)
	if k == nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("%s is not served", gvk))
	}
	cur, err := h.r.current(ctx, k, resource.Key(k, namespace, name))
	if err != nil {
		return nil, err
	}
	if cur == nil {
		return nil, notFound(k, name)
	}
	return cur.obj, nil
}

// Admit implements resource.Objects.
func (h *handling) Admit(ctx context.Context, q *resource.Request, old kube.Object, body runtime.Object) error {
	a := h.of(q).admission(OpCreate, nil, old)
	a.Body = body
	return h.r.admit(ctx, a, nil)
}

// Update implements resource.Objects.
func (h *handling) Update(ctx context.Context, req *resource.Request, body runtime.Object, change func(kube.Object) error) error {
	q := h.of(req)
	return h.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(q.Kind, q.Name)
		}
		if err := q.meant(cur); err != nil {
			return nil, err
		}
		obj := cur.obj.DeepCopyObject().(kube.Object)
		a := q.admission(OpCreate, obj, cur.obj)
		a.Body = body
		if err := h.r.admit(ctx, a, nil); err != nil {
			return nil, err
		}
		if err := change(obj); err != nil {
			return nil, err
		}
		p := &plan{kind: q.kind, key: cur.entry.Key, old: cur, obj: obj}
		return p, p.encodeChange(ctx)
	})
}

// Delete implements resource.Objects.
func (h *handling) Delete(ctx context.Context, req *resource.Request, body runtime.Object, opts *metav1.DeleteOptions, mark func(obj, old kube.Object) error) error {
	if err := InvalidOptions("DeleteOptions", validation.ValidateDeleteOptions(opts)); err != nil {
		return err
	}
	q := h.of(req)
	q.DryRun = q.DryRun || len(opts.DryRun) > 0
	q.Preconditions = opts.Preconditions
	return h.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(q.Kind, q.Name)
		}
		a := q.admission(OpCreate, nil, cur.obj)
		a.Body = body
		if err := h.r.admit(ctx, a, nil); err != nil {
			return nil, err
		}
		p, err := h.r.planDelete(ctx, q, cur, opts.DeepCopy())
		if err != nil || p.noop() {
			return p, err
		}
		if err := mark(p.obj, cur.obj); err != nil {
			return nil, err
		}
		return p, p.encode(ctx) // marked at least, or a removal
	})
}

// List implements resource.Objects.
func (h *handling) List(ctx context.Context, gvk kube.GVK, namespace string) ([]kube.Object, error) {
	if err := h.r.objects.CatchUp(ctx); err != nil {
		return nil, storeFailure(h.q.Kind, "list", err)
	}
	return h.r.objects.List(gvk, namespace), nil
}

// UpdateStatus implements resource.Objects.
func (h *handling) UpdateStatus(ctx context.Context, obj kube.Object) error {
	_, err := h.r.Client().Update(ctx, obj, "status")
	return err
}

// Now implements resource.Objects.
func (h *handling) Now() time.Time { return h.r.now().Truncate(time.Second) }
