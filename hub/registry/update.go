package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Update replaces an object, or what one of its subresources covers.
func (r *Registry) Update(ctx context.Context, t resource.Target, body runtime.Object, opts *metav1.UpdateOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.UpdateOptions{}
	}
	if err := InvalidOptions("UpdateOptions", validation.ValidateUpdateOptions(opts)); err != nil {
		return nil, err
	}
	ctx, q, err := r.resolve(ctx, "update", t, options{manager: opts.FieldManager, dryRun: opts.DryRun, validation: opts.FieldValidation})
	if err != nil {
		return nil, err
	}
	if q.sub != nil && q.sub.Put != nil {
		return r.updateDerived(ctx, q, body)
	}
	obj, err := q.object(body)
	if err != nil {
		return nil, err
	}
	if err := checkName(t, obj); err != nil {
		return nil, err
	}
	if obj, err = t.Kind.ToWorking(ctx, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	// Without a resourceVersion a conflict is tried again, with the body as it came.
	unconditional := obj.GetResourceVersion() == ""
	_, res, err := r.change(ctx, q, func(cur *current) (*plan, error) {
		next := obj
		if unconditional {
			next = obj.DeepCopyObject().(kube.Object)
		}
		if cur == nil {
			return r.createByUpdate(ctx, q, next)
		}
		if err := q.sameUID(cur, next.GetUID()); err != nil {
			return nil, err
		}
		return r.planUpdate(ctx, q, cur, next, nil)
	})
	return res, err
}

// createByUpdate plans a PUT of a name that does not exist.
func (r *Registry) createByUpdate(ctx context.Context, q *request, obj kube.Object) (*plan, error) {
	if q.sub != nil || !q.Kind.Rules.CreateOnUpdate {
		return nil, notFound(q.Kind, q.Name)
	}
	if uid := obj.GetUID(); uid != "" {
		return nil, uidMismatch(q.Kind, q.Name, uid, "")
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != "0" {
		return nil, modified(q.Kind, q.Name)
	}
	if err := mayCreate(ctx); err != nil {
		return nil, err
	}
	obj.SetResourceVersion("")
	return r.planCreate(ctx, q, obj)
}

// planUpdate runs the rules on an object's next state, which it owns. body is what a derived subresource was sent, for
// admission; nil otherwise.
func (r *Registry) planUpdate(ctx context.Context, q *request, cur *current, obj kube.Object, body runtime.Object) (_ *plan, err error) {
	defer resource.RecoverConversion(&err)
	k, old := q.kind, cur.obj
	if err := checkVersion(q, cur, obj); err != nil {
		return nil, err
	}
	obj.SetResourceVersion(objects.FormatRevision(cur.entry.Rev)) // an unconditional update is one of the current revision
	if err := FitNamespace(k, q.Namespace, obj); err != nil {
		return nil, err
	}
	p := &plan{kind: k, key: cur.entry.Key, old: cur, obj: obj}
	p.warnings = append(p.warnings, r.prepare(q, obj)...)
	if !q.apply && body == nil {
		r.fields.Updated(ctx, &q.Request, k, old, obj)
	}
	a := q.admission(OpUpdate, obj, old)
	a.Body = body
	if err := r.admit(ctx, a, func() error { return applyUpdateRules(ctx, k, q.rules(), p, obj, old) }); err != nil {
		return nil, err
	}
	if mayGo(k, obj, old) {
		p.remove = true
		return p, p.encode(ctx)
	}
	if err := p.encodeChange(ctx); err != nil {
		return nil, err
	}
	return p, p.bounded(ctx, q)
}

// applyUpdateRules does the strategy's part of an update: it restores what may not change, and refuses what is wrong.
func applyUpdateRules(ctx context.Context, k *resource.Kind, rules *resource.Rules, p *plan, obj, old kube.Object) error {
	ctx = resource.ConvertOnce(ctx)
	obj.SetGeneration(old.GetGeneration())
	if rules.PrepareUpdate != nil {
		restore := fieldmanager.Guard(obj)
		rules.PrepareUpdate(ctx, obj, old)
		_ = restore(true) // of what a subresource keeps of its parent the managers are no part
	}
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	if at := old.GetCreationTimestamp(); !at.IsZero() {
		obj.SetCreationTimestamp(at)
	}
	// An update can neither end a deletion nor begin one.
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	if old.GetDeletionTimestamp() == nil || obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	meta := field.NewPath("metadata")
	errs := genericvalidation.ValidateObjectMetaAccessor(obj, k.Namespaced, pathSegment, meta)
	errs = append(errs, genericvalidation.ValidateObjectMetaAccessorUpdate(obj, old, meta)...)
	if rules.ValidateUpdate != nil {
		errs = append(errs, rules.ValidateUpdate(ctx, obj, old)...)
	}
	if len(errs) > 0 {
		return invalid(k, obj.GetName(), dedupErrors(errs))
	}
	if rules.WarnUpdate != nil {
		p.warnings = append(p.warnings, rules.WarnUpdate(ctx, obj, old)...)
	}
	return nil
}

// dedupErrors drops what both the common and the kind's own metadata rules found.
func dedupErrors(errs field.ErrorList) field.ErrorList {
	seen := map[string]bool{}
	kept := errs[:0]
	for _, e := range errs {
		if text := e.Error(); !seen[text] {
			seen[text] = true
			kept = append(kept, e)
		}
	}
	return kept
}

// checkVersion is the optimistic lock: it returns nil when obj was made from the current revision, or names none.
func checkVersion(q *request, cur *current, obj kube.Object) error {
	version := obj.GetResourceVersion()
	if version == "" || version == "0" {
		if q.kind.Rules.UnconditionalUpdate || q.Subresource != "" && q.Subresource != "status" {
			return nil
		}
		return kube.NewInvalid(groupKindOfResource(q.Kind), q.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata").Child("resourceVersion"), 0, "must be specified for an update")})
	}
	if version != objects.FormatRevision(cur.entry.Rev) {
		if _, err := objects.ParseRevision(version); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q: it is not one that this server gave out", version))
		}
		return modified(q.Kind, q.Name)
	}
	return nil
}

// mayGo reports whether an update takes the last reason why a deleted object still exists.
func mayGo(k *resource.Kind, obj, old kube.Object) bool {
	if old.GetDeletionTimestamp() == nil || len(obj.GetFinalizers()) > 0 {
		return false
	}
	if g := old.GetDeletionGracePeriodSeconds(); g != nil && *g != 0 {
		return false
	}
	return k.Finalizers == nil || len(k.Finalizers(obj)) == 0
}
