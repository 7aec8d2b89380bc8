package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

const (
	generatedSuffix = 5
	maxGenerateBase = 63 - generatedSuffix
	// generateTries is how many names a generateName gets before the client is told to try again.
	generateTries = 8
)

// Create stores a new object, or runs one of the subresources that are created: binding, eviction, token.
func (r *Registry) Create(ctx context.Context, t Target, body runtime.Object, opts *metav1.CreateOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.CreateOptions{}
	}
	if err := invalidOptions("CreateOptions", validation.ValidateCreateOptions(opts)); err != nil {
		return nil, err
	}
	dry := len(opts.DryRun) > 0
	if t.Subresource != "" {
		return r.createSub(ctx, t, body, dry)
	}
	obj, ok := asKube(body)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("a %s has no metadata", t.Kind.GVK.Kind))
	}
	if err := r.refuseToldCreate(ctx, t, obj); err != nil {
		return nil, err
	}
	obj, err := toStored(t.Kind, obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	generate := obj.GetName() == "" && obj.GetGenerateName() != ""
	for try := 1; ; try++ {
		next := obj
		if generate && try < generateTries {
			next = obj.DeepCopyObject().(kube.Object)
		}
		res, err := r.createOnce(ctx, t, next, dry)
		switch {
		case err == nil || !generate || !apierrors.IsAlreadyExists(err):
			return res, err
		case try == generateTries:
			return nil, apierrors.NewGenerateNameConflict(groupResource(t.Kind), next.GetName(), 1)
		}
	}
}

func (r *Registry) createOnce(ctx context.Context, t Target, obj kube.Object, dry bool) (*Result, error) {
	p, err := r.planCreate(ctx, t, obj, dry)
	if err != nil {
		return nil, err
	}
	cur, ok, err := r.store.Get(ctx, p.key)
	if err != nil {
		return nil, storeFailure(t.Kind, "create", err)
	}
	if ok {
		return nil, r.exists(t, p, cur)
	}
	if dry {
		return r.uncommitted(t, p)
	}
	name := p.obj.GetName()
	revs, err := r.commit(ctx, p)
	var lost *sqlstore.ConflictError
	if errors.As(err, &lost) {
		cur, _, err := r.store.Get(ctx, p.key)
		if err != nil {
			return nil, storeFailure(t.Kind, "create", err)
		}
		return nil, r.exists(t, p, cur)
	}
	if err != nil {
		return nil, storeFailure(t.Kind, "create", err)
	}
	t.Name = name
	return r.committed(ctx, t, p, revs[0])
}

// exists says so, and whether the name will be free soon.
func (r *Registry) exists(t Target, p *plan, e sqlstore.Entry) error {
	err := apierrors.NewAlreadyExists(groupResource(t.Kind), p.obj.GetName())
	if e.Value == nil {
		return err
	}
	if o, derr := r.typed(p.kind, p.key, e.Rev, e.Value); derr == nil && o.GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// planCreate runs the rules on a new object, which it owns.
func (r *Registry) planCreate(ctx context.Context, t Target, obj kube.Object, dry bool) (_ *plan, err error) {
	defer resource.RecoverConversion(&err)
	k, rules := storedKind(t.Kind), &t.Kind.Rules
	if err := r.refuseMorePods(ctx, k, obj); err != nil {
		return nil, err
	}
	if obj.GetResourceVersion() != "" {
		return nil, plainError(versionAtNewText)
	}
	if t.Name != "" && obj.GetName() == "" {
		obj.SetName(t.Name)
	}
	if err := ensureNamespace(k, t.Namespace, obj); err != nil {
		return nil, err
	}
	p := &plan{kind: k, obj: obj}
	wipe(obj)
	obj.SetManagedFields(nil)
	p.warnings = append(p.warnings, dedupOwners(obj)...)
	if rules.Default != nil {
		rules.Default(obj)
	}
	t.Kind = k
	attrs := Attributes{Target: t, Operation: OpCreate, Object: obj, DryRun: dry}
	if err := r.admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
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
			return nil, invalid(k, obj.GetName(), errs)
		}
	}
	if errs := genericvalidation.ValidateObjectMetaAccessor(obj, k.Namespaced, pathSegment, field.NewPath("metadata")); len(errs) > 0 {
		return nil, invalid(k, obj.GetName(), errs)
	}
	if rules.WarnCreate != nil {
		p.warnings = append(p.warnings, rules.WarnCreate(ctx, obj)...)
	}
	attrs.Target.Name = obj.GetName()
	if err := r.admission.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	p.key = resource.Key(k, obj.GetNamespace(), obj.GetName())
	if err := p.encode(); err != nil {
		return nil, err
	}
	return p, p.bounded()
}

// refuseMorePods keeps a typing error in a number of replicas from filling the hub's memory. Creations that race with each
// other may get by together.
func (r *Registry) refuseMorePods(ctx context.Context, k *resource.Kind, obj kube.Object) error {
	if r.maxPods <= 0 || k.GVK != kube.Pod {
		return nil
	}
	page, err := r.store.List(ctx, resource.Prefix(k, ""), "", 1, 0)
	if err != nil {
		return storeFailure(k, "create", err)
	}
	have := len(page.Entries) + page.Remain
	if have < r.maxPods {
		return nil
	}
	name := obj.GetName()
	if name == "" {
		name = obj.GetGenerateName()
	}
	return apierrors.NewForbidden(groupResource(k), name,
		fmt.Errorf("this hub takes %d pods and has %d: delete pods, scale workloads down, or raise petrel hub --max-pods", r.maxPods, have))
}

func pathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// ensureNamespace fills in the request's namespace, or refuses another one.
func ensureNamespace(k *resource.Kind, namespace string, obj kube.Object) error {
	if !k.Namespaced {
		obj.SetNamespace("")
		return nil
	}
	switch obj.GetNamespace() {
	case namespace:
	case "":
		obj.SetNamespace(namespace)
	default:
		if namespace == "" {
			return nil
		}
		return apierrors.NewBadRequest(namespaceText)
	}
	return nil
}

// wipe erases what only the hub may say about an object.
func wipe(obj kube.Object) {
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetUID("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
}

// dedupOwners removes repeated owner references and warns, as Kubernetes does.
func dedupOwners(obj kube.Object) []string {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return nil
	}
	kept := make([]metav1.OwnerReference, 0, len(refs))
	at := map[string]int{}
	var doubled []string
	for _, ref := range refs {
		if _, ok := at[string(ref.UID)]; ok && sameOwner(kept[at[string(ref.UID)]], ref) {
			doubled = append(doubled, string(ref.UID))
			continue
		}
		at[string(ref.UID)] = len(kept)
		kept = append(kept, ref)
	}
	if doubled == nil {
		return nil
	}
	obj.SetOwnerReferences(kept)
	return []string{fmt.Sprintf(".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v", doubled)}
}

func sameOwner(a, b metav1.OwnerReference) bool {
	eq := func(x, y *bool) bool { return x == y || x != nil && y != nil && *x == *y }
	return a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name && a.UID == b.UID &&
		eq(a.Controller, b.Controller) && eq(a.BlockOwnerDeletion, b.BlockOwnerDeletion)
}
