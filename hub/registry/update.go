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
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Update replaces an object, or what one of its subresources covers.
func (r *Registry) Update(ctx context.Context, t Target, body runtime.Object, opts *metav1.UpdateOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.UpdateOptions{}
	}
	if err := invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(opts)); err != nil {
		return nil, err
	}
	if err := r.writable(t); err != nil {
		return nil, err
	}
	dry := len(opts.DryRun) > 0
	sub, err := subresource(t, "update")
	if err != nil {
		return nil, err
	}
	if sub != nil && sub.Put != nil {
		return r.updateDerived(ctx, t, sub, body, dry)
	}
	obj, ok := asKube(body)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("a %s has no metadata", t.Kind.GVK.Kind))
	}
	if err := checkName(t, obj); err != nil {
		return nil, err
	}
	if obj, err = toStored(t.Kind, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	// Without a resourceVersion a lost race starts again, with the body as it came.
	unconditional := obj.GetResourceVersion() == ""
	_, res, err := r.change(ctx, t, dry, func(cur *current) (*plan, error) {
		next := obj
		if unconditional {
			next = obj.DeepCopyObject().(kube.Object)
		}
		if cur == nil {
			return r.createByUpdate(ctx, t, sub, next, dry)
		}
		if uid := next.GetUID(); uid != "" && uid != cur.obj.GetUID() {
			return nil, uidMismatch(t.Kind, t.Name, uid, cur.obj.GetUID())
		}
		return r.planUpdate(ctx, update{t: t, sub: sub, cur: cur, obj: next, dry: dry})
	})
	return res, err
}

// createByUpdate is a PUT of a name that does not exist.
func (r *Registry) createByUpdate(ctx context.Context, t Target, sub *resource.Subresource, obj kube.Object, dry bool) (*plan, error) {
	if sub != nil || !t.Kind.Rules.CreateOnUpdate {
		return nil, notFound(t.Kind, t.Name)
	}
	if uid := obj.GetUID(); uid != "" {
		return nil, uidMismatch(t.Kind, t.Name, uid, "")
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != "0" {
		return nil, modified(t.Kind, t.Name)
	}
	obj.SetResourceVersion("")
	return r.planCreate(ctx, t, obj, dry)
}

// update is one attempt to replace cur by obj, which the attempt owns.
type update struct {
	t    Target
	sub  *resource.Subresource // nil: the object itself
	cur  *current
	obj  kube.Object
	body runtime.Object // what a derived subresource was given, for admission
	dry  bool
}

// planUpdate runs the rules on an object's next state.
func (r *Registry) planUpdate(ctx context.Context, u update) (_ *plan, err error) {
	defer resource.RecoverConversion(&err)
	k, old, obj := storedKind(u.t.Kind), u.cur.obj, u.obj
	rules := &u.t.Kind.Rules
	if u.sub != nil && u.sub.Rules != nil {
		rules = u.sub.Rules
	}
	if err := checkVersion(u.t, k, u.cur, obj); err != nil {
		return nil, err
	}
	obj.SetResourceVersion(objects.FormatRevision(u.cur.entry.Rev)) // an unconditional update is one of the current revision
	if err := ensureNamespace(k, u.t.Namespace, obj); err != nil {
		return nil, err
	}
	p := &plan{kind: k, key: u.cur.entry.Key, old: u.cur, obj: obj}
	obj.SetManagedFields(nil)
	obj.SetSelfLink("")
	p.warnings = append(p.warnings, dedupOwners(obj)...)
	if def := u.t.Kind.Rules.Default; def != nil {
		def(obj)
	}
	t := u.t
	t.Kind = k
	attrs := Attributes{Target: t, Operation: OpUpdate, Object: obj, Old: old, Body: u.body, DryRun: u.dry}
	if err := r.admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
	if err := applyUpdateRules(ctx, k, rules, p, obj, old); err != nil {
		return nil, err
	}
	if err := r.admission.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	if mayGo(k, obj, old) {
		p.remove = true
		return p, p.encode()
	}
	if err := p.encodeChange(); err != nil {
		return nil, err
	}
	return p, p.bounded()
}

// applyUpdateRules is the strategy's part of an update: what may not change is put back, what is wrong is refused.
func applyUpdateRules(ctx context.Context, k *resource.Kind, rules *resource.Rules, p *plan, obj, old kube.Object) error {
	obj.SetGeneration(old.GetGeneration())
	if rules.PrepareUpdate != nil {
		rules.PrepareUpdate(ctx, obj, old)
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

// checkVersion is the optimistic lock: obj was made from the current revision, or does not say from which.
func checkVersion(t Target, k *resource.Kind, cur *current, obj kube.Object) error {
	given := obj.GetResourceVersion()
	if given == "" || given == "0" {
		if k.Rules.UnconditionalUpdate || t.Subresource != "" && t.Subresource != "status" {
			return nil
		}
		return apierrors.NewInvalid(groupKindOfResource(t.Kind), t.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata").Child("resourceVersion"), 0, "must be specified for an update")})
	}
	if given != objects.FormatRevision(cur.entry.Rev) {
		if _, err := objects.ParseRevision(given); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q: it is not one that this server gave out", given))
		}
		return modified(t.Kind, t.Name)
	}
	return nil
}

// mayGo tells whether an update takes the last reason why a deleted object still exists.
func mayGo(k *resource.Kind, obj, old kube.Object) bool {
	if old.GetDeletionTimestamp() == nil || len(obj.GetFinalizers()) > 0 {
		return false
	}
	if g := old.GetDeletionGracePeriodSeconds(); g != nil && *g != 0 {
		return false
	}
	return k.Finalizers == nil || len(k.Finalizers(obj)) == 0
}

// checkName: the body must be about what the URL names.
func checkName(t Target, obj kube.Object) error {
	if obj.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", t.Name))
	}
	if obj.GetName() != t.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), t.Name))
	}
	if ns := obj.GetNamespace(); t.Namespace != "" && ns != "" && ns != t.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the request (%s)", ns, t.Namespace))
	}
	return nil
}
