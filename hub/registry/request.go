package registry

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// request is one write on its way through the pipeline. All verbs share the steps and each brings its plan:
//
//	resolve ─► decode ─► default ──► mutate ───► validate ──► commit
//	user, kind body,     the kind's  admission,  Rules, then  all plans of a
//	and verb   patch     Rules       then Rules  admission    commit, or none
//
// It does not change once resolved.
type request struct {
	resource.Request
	kind *resource.Kind        // Kind.Working: Kind itself, unless that is a view
	sub  *resource.Subresource // nil: the object itself
	// apply says that the request is a server-side apply, which has recorded its managers already.
	apply bool
}

// options are what the verbs' own options have in common.
type options struct {
	manager       string
	dryRun        []string
	validation    string // fieldValidation's value
	preconditions *metav1.Preconditions
	apply         bool
}

// resolve makes the request of a verb, or refuses what is not served or cannot be written. The context passes it to the kind's
// rules.
func (r *Registry) resolve(ctx context.Context, verb string, t resource.Target, o options) (context.Context, *request, error) {
	sub, err := served(t, verb)
	if err == nil && verb != "create" { // a creation may not have its name yet
		err = r.writable(t)
	}
	if err != nil {
		return nil, nil, err
	}
	q := &request{
		Request: resource.Request{
			Target: t, User: auth.UserFrom(ctx), Manager: o.manager, DryRun: len(o.dryRun) > 0, Preconditions: o.preconditions,
			FieldValidation: o.validation,
		},
		kind: t.Kind.Working(), sub: sub, apply: o.apply,
	}
	return resource.WithRequest(ctx, &q.Request), q, nil
}

// served returns the subresource that t names, nil for the object itself, or refuses a verb that it does not have. The API server
// limits clients to the verbs that a stored kind offers; the hub's own parts may use all.
func served(t resource.Target, verb string) (*resource.Subresource, error) {
	gr := t.Kind.Resource()
	if t.Subresource == "" {
		if t.Kind.Virtual() && verb != "create" {
			return nil, apierrors.NewMethodNotSupported(gr, verb)
		}
		return nil, nil
	}
	s := t.Kind.Working().Subresources[t.Subresource]
	if s == nil {
		return nil, apierrors.NewGenericServerResponse(404, verb, gr, t.Name, "the server could not find the requested resource", 0, true)
	}
	if len(s.Verbs) > 0 && !slices.Contains(s.Verbs, verb) {
		gr.Resource += "/" + t.Subresource
		return nil, apierrors.NewMethodNotSupported(gr, verb)
	}
	return s, nil
}

// writable refuses to write what cannot be written, before anything else is looked at.
func (r *Registry) writable(t resource.Target) error {
	return r.readOnly(resource.Key(t.Kind, t.Namespace, t.Name))
}

// creatable is writable for a new object, whose name may be taken.
func (r *Registry) creatable(ctx context.Context, t resource.Target, obj kube.Object) error {
	if t.Namespace == "" {
		t.Namespace = obj.GetNamespace()
	}
	t.Name = obj.GetName()
	refused := r.writable(t)
	if refused == nil {
		return nil
	}
	_, taken, err := r.store.Get(ctx, resource.Key(t.Kind, t.Namespace, t.Name))
	switch {
	case err != nil:
		return storeFailure(t.Kind, "create", err)
	case taken:
		return apierrors.NewAlreadyExists(t.Kind.Resource(), t.Name)
	}
	return refused
}

// rules returns those of the version in the request, or of the subresource where it has its own.
func (q *request) rules() *resource.Rules {
	if q.sub != nil && q.sub.Rules != nil {
		return q.sub.Rules
	}
	return &q.Kind.Rules
}

// handler returns the Handler that answers the request instead of the store; nil when it is about stored objects.
func (q *request) handler() resource.Handler {
	if q.sub != nil {
		return q.sub.Handler
	}
	return q.Kind.Handler
}

// admission returns the request as admission sees it: with the Working kind.
func (q *request) admission(op Operation, obj, old kube.Object) *AdmissionRequest {
	a := &AdmissionRequest{Request: q.Request, As: q.Kind, Operation: op, Object: obj, Old: old}
	a.Kind = q.kind
	return a
}

// damagedFields is upstream's text, which clients compare.
const damagedFields = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v"

// admit runs admission around the kind's own rules: mutate, rules (nil: none), validate.
func (r *Registry) admit(ctx context.Context, a *AdmissionRequest, rules func() error) error {
	restore := fieldmanager.Guard(a.Object)
	if err := r.admission.Mutate(ctx, a); err != nil {
		return err
	}
	if err := restore(false); err != nil {
		r.log.Warn("admission damaged managedFields, which are as before", "kind", a.Kind.GVK.Kind, "name", a.Name, "error", err)
		warning.AddWarning(ctx, "", fmt.Sprintf(damagedFields, err))
	}
	if rules != nil {
		if err := rules(); err != nil {
			return err
		}
	}
	return r.admission.Validate(ctx, a)
}

// Connect implements Verbs.
func (r *Registry) Connect(ctx context.Context, t resource.Target, options runtime.Object) error {
	a := &AdmissionRequest{Request: resource.Request{Target: t, User: auth.UserFrom(ctx)}, As: t.Kind, Operation: OpConnect, Body: options}
	a.Kind = t.Kind.Working()
	return r.admit(ctx, a, nil)
}

// object returns the body of a request about a whole object.
func (q *request) object(body runtime.Object) (kube.Object, error) {
	obj, ok := asKube(body)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("a %s has no metadata", q.Kind.GVK.Kind))
	}
	if _, partial := obj.(*metav1.PartialObjectMetadata); partial { // a loop's mistake: it has only seen that of the object
		return nil, apierrors.NewBadRequest(fmt.Sprintf("this is the metadata of a %s, not all of it", q.Kind.GVK.Kind))
	}
	return obj, nil
}

// sameUID refuses cur when a body names another object by its uid; "" names none.
func (q *request) sameUID(cur *current, uid types.UID) error {
	if uid == "" || uid == cur.obj.GetUID() {
		return nil
	}
	return uidMismatch(q.Kind, q.Name, uid, cur.obj.GetUID())
}

// meant refuses cur when it is not the object of the request's preconditions. A deletion has its own texts for that.
func (q *request) meant(cur *current) error {
	pre := q.Preconditions
	switch {
	case pre == nil:
		return nil
	case pre.UID != nil && *pre.UID != cur.obj.GetUID():
		return uidMismatch(q.Kind, q.Name, *pre.UID, cur.obj.GetUID())
	case pre.ResourceVersion != nil && *pre.ResourceVersion != objects.FormatRevision(cur.entry.Rev):
		return modified(q.Kind, q.Name)
	}
	return nil
}

// InvalidOptions returns the Status of errors in a request's options, nil when there are none.
func InvalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return kube.NewInvalid(metav1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", errs)
}
