package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/registry/owners"
	"petrel.dev/petrel/hub/registry/status"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

const (
	generatedSuffix = 5
	maxGenerateBase = 63 - generatedSuffix
	// generateTries is how many names a generateName gets before the client has to try again.
	generateTries = 8
)

// Create stores a new object, or returns the answer of its Handler when the kind is not stored.
func (r *Registry) Create(ctx context.Context, t resource.Target, body runtime.Object, opts *metav1.CreateOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.CreateOptions{}
	}
	if err := InvalidOptions("CreateOptions", validation.ValidateCreateOptions(opts)); err != nil {
		return nil, err
	}
	ctx, q, err := r.resolve(ctx, "create", t, options{manager: opts.FieldManager, dryRun: opts.DryRun, validation: opts.FieldValidation})
	if err != nil {
		return nil, err
	}
	if q.sub != nil || q.Kind.Virtual() {
		return r.handle(ctx, q, body)
	}
	obj, err := q.object(body)
	if err != nil {
		return nil, err
	}
	if err := r.creatable(ctx, t, obj); err != nil {
		return nil, err
	}
	if obj, err = t.Kind.ToWorking(ctx, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	generate := obj.GetName() == "" && obj.GetGenerateName() != ""
	for try := 1; ; try++ {
		next := obj
		if generate && try < generateTries {
			next = obj.DeepCopyObject().(kube.Object)
		}
		res, err := r.createOnce(ctx, q, next)
		switch {
		case err == nil || !generate || !apierrors.IsAlreadyExists(err):
			return res, err
		case try == generateTries:
			return nil, apierrors.NewGenerateNameConflict(t.Kind.Resource(), next.GetName(), 1)
		}
	}
}

// createOnce creates the object under one name; Create tries others when a generated one is taken. It owns obj.
func (r *Registry) createOnce(ctx context.Context, q *request, obj kube.Object) (*Result, error) {
	p, err := r.planCreate(ctx, q, obj)
	if err != nil {
		return nil, err
	}
	cur, ok, err := r.store.Get(ctx, p.key)
	if err != nil {
		return nil, storeFailure(q.Kind, "create", err)
	}
	if ok {
		return nil, r.exists(q, p, cur)
	}
	if q.DryRun {
		return r.uncommitted(ctx, q, p)
	}
	revs, err := r.commit(ctx, p)
	var lost *sqlstore.ConflictError
	if errors.As(err, &lost) {
		cur, _, err := r.store.Get(ctx, p.key)
		if err != nil {
			return nil, storeFailure(q.Kind, "create", err)
		}
		return nil, r.exists(q, p, cur)
	}
	if err != nil {
		return nil, storeFailure(q.Kind, "create", err)
	}
	return r.committed(ctx, q, p, revs[0])
}

// exists returns the refusal of a name that is taken, and whether it will be free soon.
func (r *Registry) exists(q *request, p *plan, e sqlstore.Entry) error {
	err := apierrors.NewAlreadyExists(q.Kind.Resource(), p.obj.GetName())
	if e.Value == nil {
		return err
	}
	if o, derr := r.objects.Typed(p.kind.Stored(), p.key, e.Rev, e.Value); derr == nil && o.GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// planCreate runs the rules on a new object, which it owns.
func (r *Registry) planCreate(ctx context.Context, q *request, obj kube.Object) (_ *plan, err error) {
	defer resource.RecoverConversion(&err)
	k, rules := q.kind, q.rules()
	if err := r.checkLimit(ctx, k, obj); err != nil {
		return nil, err
	}
	if k.Closing != nil {
		if why := k.Closing(); why != "" {
			return nil, apierrors.NewForbidden(k.Resource(), obj.GetName(), errors.New(why))
		}
	}
	if obj.GetResourceVersion() != "" {
		return nil, status.Plain(versionAtNewText)
	}
	if q.Name != "" && obj.GetName() == "" {
		obj.SetName(q.Name)
	}
	if err := FitNamespace(k, q.Namespace, obj); err != nil {
		return nil, err
	}
	p := &plan{kind: k, obj: obj}
	wipe(obj)
	p.warnings = append(p.warnings, r.prepare(q, obj)...)
	if !q.apply {
		r.fields.Created(ctx, &q.Request, k, obj)
	}
	a := q.admission(OpCreate, obj, nil)
	if err := r.admit(ctx, a, func() error { return r.applyCreateRules(ctx, a, rules, p) }); err != nil {
		return nil, err
	}
	p.key = resource.Key(k, obj.GetNamespace(), obj.GetName())
	if err := p.encode(ctx); err != nil {
		return nil, err
	}
	return p, p.bounded(ctx, q)
}

// applyCreateRules does the strategy's part of a creation: it sets what only the hub sets, and refuses what is wrong. After it the
// object has the name that admission validates.
func (r *Registry) applyCreateRules(ctx context.Context, a *AdmissionRequest, rules *resource.Rules, p *plan) error {
	k, obj := p.kind, p.obj
	ctx = resource.ConvertOnce(ctx)
	obj.SetCreationTimestamp(metav1.NewTime(r.now().Truncate(1e9)))
	obj.SetUID(uuid.NewUUID())
	if base := obj.GetGenerateName(); base != "" && obj.GetName() == "" {
		obj.SetName(base[:min(len(base), maxGenerateBase)] + rand.String(generatedSuffix))
	}
	if rules.PrepareCreate != nil {
		rules.PrepareCreate(ctx, obj)
	}
	if rules.ValidateCreate != nil {
		if errs := rules.ValidateCreate(ctx, obj); len(errs) > 0 {
			return invalid(k, obj.GetName(), errs)
		}
	}
	if errs := genericvalidation.ValidateObjectMetaAccessor(obj, k.Namespaced, pathSegment, field.NewPath("metadata")); len(errs) > 0 {
		return invalid(k, obj.GetName(), errs)
	}
	if rules.WarnCreate != nil {
		p.warnings = append(p.warnings, rules.WarnCreate(ctx, obj)...)
	}
	if k.Inert != "" {
		p.warnings = append(p.warnings, fmt.Sprintf("Petrel stores %s; %s", k.GVK.Kind, k.Inert))
	}
	a.Name = obj.GetName()
	return nil
}

// checkLimit keeps a typing error in a number of replicas from filling the hub's memory. Concurrent creations may
// exceed the limit together.
func (r *Registry) checkLimit(ctx context.Context, k *resource.Kind, obj kube.Object) error {
	limit := r.limits[k.GVK]
	if limit.Max <= 0 {
		return nil
	}
	// The cache is a moment behind: it answers only where that does not matter.
	if n, ok := r.objects.Count(k); ok && n < limit.Max/2 {
		return nil
	}
	page, err := r.store.List(ctx, resource.Prefix(k, ""), "", 1, 0)
	if err != nil {
		return storeFailure(k, "create", err)
	}
	have := len(page.Entries) + page.Remain
	if have < limit.Max {
		return nil
	}
	name := obj.GetName()
	if name == "" {
		name = obj.GetGenerateName()
	}
	return apierrors.NewForbidden(k.Resource(), name,
		fmt.Errorf("this hub takes %d %s and has %d: %s", limit.Max, k.Plural, have, limit.Advice))
}

// prepare brings a body into the shape that rules and admission see: what clients may not set is removed, what is left out
// has its default. It returns warnings.
func (r *Registry) prepare(q *request, obj kube.Object) []string {
	obj.SetSelfLink("")
	warnings := owners.Dedup(obj)
	if def := q.Kind.Rules.Default; def != nil {
		def(obj)
	}
	return warnings
}

// wipe erases what only the hub may set on a new object.
func wipe(obj kube.Object) {
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetUID("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
}
