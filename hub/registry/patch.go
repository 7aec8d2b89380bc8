package registry

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry/patch"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// heavyPatch is the size of patch and object, in bytes, from which patches are applied one at a time.
const heavyPatch = 64 << 10

// Patch applies a patch to the current object, again to the new current one when another write came between.
func (r *Registry) Patch(ctx context.Context, t resource.Target, pt types.PatchType, body []byte, opts *metav1.PatchOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.PatchOptions{}
	}
	if accepted := t.Kind.PatchTypes(); !slices.Contains(accepted, pt) {
		return nil, patch.Unsupported(pt, accepted)
	}
	if err := InvalidOptions("PatchOptions", validation.ValidatePatchOptions(opts, pt)); err != nil {
		return nil, err
	}
	ctx, q, err := r.resolve(ctx, "patch", t, options{
		manager: opts.FieldManager, dryRun: opts.DryRun, validation: opts.FieldValidation,
		apply: pt == types.ApplyYAMLPatchType || pt == types.ApplyCBORPatchType,
	})
	if err != nil {
		return nil, err
	}
	if q.apply {
		return r.apply(ctx, q, pt, body, opts)
	}
	p := patch.Patch{Type: pt, Body: body, Validation: opts.FieldValidation, Turn: func(size int) (func(), error) { return r.turn(ctx, size) }}
	if q.sub != nil && q.sub.Put != nil {
		res, err := r.changeDerived(ctx, q, func(cur *current, _ kube.Object) (runtime.Object, error) {
			now, err := bodyOf(q.sub, cur.obj)
			if err != nil {
				return nil, err
			}
			text, err := encodeBody(now)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			return p.Apply(text, q.sub.New())
		})
		return warn(res, p.Warnings), err
	}
	_, res, err := r.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		obj, err := r.patched(ctx, t.Kind, cur, &p)
		if err != nil {
			return nil, err
		}
		if err := checkName(t, obj); err != nil {
			return nil, err
		}
		return r.planUpdate(ctx, q, cur, obj, nil)
	})
	return warn(res, p.Warnings), err
}

// warn puts the warnings of a body before those of its result.
func warn(res *Result, warnings []string) *Result {
	if res != nil {
		res.Warnings = append(warnings, res.Warnings...)
	}
	return res
}

// patched returns the object that results from the patch of the current one, in the version in which it is decided.
func (r *Registry) patched(ctx context.Context, k *resource.Kind, cur *current, p *patch.Patch) (kube.Object, error) {
	now, err := r.nowOf(ctx, k, cur)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	p.Of = k
	body, err := p.Apply(now, k.New())
	if err != nil {
		return nil, err
	}
	obj, _ := asKube(body)
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	if obj, err = k.ToWorking(ctx, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj, nil
}

// nowOf returns the JSON that a patch of an object of k applies to.
func (r *Registry) nowOf(ctx context.Context, k *resource.Kind, cur *current) ([]byte, error) {
	if k == k.Working() && !k.AsStored() {
		return encodeBody(cur.obj)
	}
	return r.view(ctx, k, cur.entry.Key, cur.entry.Rev, cur.entry.Value)
}

// turn waits until a large patch may be applied: one at a time, so that patches have one core of the machine at most. Users
// take turns, parts of the hub too. done must be called.
func (r *Registry) turn(ctx context.Context, size int) (done func(), err error) {
	if size < heavyPatch {
		return func() {}, nil
	}
	done, err = r.patching.Acquire(ctx, auth.UserFrom(ctx).Name)
	if err != nil {
		return nil, apierrors.NewTimeoutError("other large patches are being applied; try again later", 2)
	}
	return done, nil
}
