package admission

import (
	"context"
	"errors"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Rights knows what users may do, and what roles allow; *rbac.Authorizer is one.
type Rights interface {
	// MayGrant returns nil when u itself has all that rules allow in a namespace, MayAggregate when it has everything.
	MayGrant(ctx context.Context, u auth.User, namespace string, rules []rbacv1.PolicyRule) error
	MayAggregate(ctx context.Context, u auth.User) error
	// RulesOf returns the rules of the role that a binding in a namespace refers to.
	RulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// escalation keeps users from giving rights that they do not have: by the rules of a role, or by a binding to one. Those who may
// "escalate" the role, or "bind" it, may do so all the same.
type escalation struct {
	authorizer auth.Authorizer // nil: nobody but system:masters may write roles and bindings
	rights     Rights          // nil: the same
}

// check refuses roles and bindings that give more than their writer has. It comes after the kind's own rules, so that it
// sees what is stored.
func (e *escalation) check(ctx context.Context, a *registry.AdmissionRequest) error {
	if a.Operation == registry.OpDelete || a.User.IsMaster() {
		return nil
	}
	switch obj := a.Object.(type) {
	case *rbacv1.Role:
		return e.checkRole(ctx, a, obj.Rules, false)
	case *rbacv1.ClusterRole:
		old, _ := a.Old.(*rbacv1.ClusterRole)
		return e.checkRole(ctx, a, obj.Rules, aggregates(obj) || old != nil && aggregates(old))
	case *rbacv1.RoleBinding:
		return e.checkBinding(ctx, a, obj.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return e.checkBinding(ctx, a, obj.RoleRef)
	}
	return nil
}

func (e *escalation) checkRole(ctx context.Context, a *registry.AdmissionRequest, rules []rbacv1.PolicyRule, aggregates bool) error {
	name := ""
	if q := resource.RequestFrom(ctx); q != nil {
		name = q.Name // empty in a creation: a right to one role by its name is none to make it
	}
	if e.rights == nil || e.authorizer == nil {
		return refuse.Forbidden(a, errors.New("this hub cannot decide who may grant what"))
	}
	if onlyCollected(a) || e.allowed(ctx, a, auth.Attributes{
		Verb: "escalate", APIGroup: rbacv1.GroupName, Plural: a.Kind.Plural, Name: name, Namespace: a.Object.GetNamespace(),
	}) {
		return nil
	}
	if err := e.rights.MayGrant(ctx, a.User, a.Object.GetNamespace(), rules); err != nil {
		return refuse.Forbidden(a, err)
	}
	if aggregates {
		if err := e.rights.MayAggregate(ctx, a.User); err != nil {
			return refuse.Forbidden(a, err)
		}
	}
	return nil
}

func (e *escalation) checkBinding(ctx context.Context, a *registry.AdmissionRequest, ref rbacv1.RoleRef) error {
	if e.rights == nil || e.authorizer == nil {
		return refuse.Forbidden(a, errors.New("this hub cannot decide who may grant what"))
	}
	namespace, plural := a.Object.GetNamespace(), map[string]string{kube.ClusterRole.Kind: "clusterroles", kube.Role.Kind: "roles"}[ref.Kind]
	if onlyCollected(a) || plural != "" && e.allowed(ctx, a, auth.Attributes{
		Verb: "bind", APIGroup: ref.APIGroup, Plural: plural, Name: ref.Name, Namespace: namespace,
	}) {
		return nil
	}
	rules, err := e.rights.RulesOf(ref, namespace)
	if err != nil {
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			return err
		}
		return apierrors.NewInternalError(err)
	}
	if err := e.rights.MayGrant(ctx, a.User, namespace, rules); err != nil {
		return refuse.Forbidden(a, err)
	}
	return nil
}

// allowed reports whether the writer has a right beyond the verb of the request. An error is a no.
func (e *escalation) allowed(ctx context.Context, a *registry.AdmissionRequest, at auth.Attributes) bool {
	at.Resource, at.APIVersion = true, "*"
	ok, _, err := e.authorizer.Authorize(ctx, a.User, at)
	return ok && err == nil
}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// onlyCollected reports whether an update changes nothing but what garbage collection needs: owners and finalizers.
func onlyCollected(a *registry.AdmissionRequest) bool {
	if a.Old == nil {
		return false
	}
	obj := a.Object.DeepCopyObject().(kube.Object)
	obj.SetOwnerReferences(a.Old.GetOwnerReferences())
	obj.SetFinalizers(a.Old.GetFinalizers())
	obj.SetManagedFields(a.Old.GetManagedFields())
	obj.SetResourceVersion(a.Old.GetResourceVersion())
	return equality.Semantic.DeepEqual(obj, a.Old)
}
