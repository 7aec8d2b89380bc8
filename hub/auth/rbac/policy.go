package rbac

import (
	"fmt"
	"iter"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/kube"
)

// policy is what all roles and bindings say at one time. It does not change, but for the tables that its subjects get when they
// first ask.
type policy struct {
	versions     versions
	clusterRoles map[string]*rbacv1.ClusterRole
	roles        map[[2]string]*rbacv1.Role       // by namespace and name
	bindings     map[string]map[subject]*bindings // by namespace, "" for those of the cluster
}

// subject is who a binding is for: a user, or everyone in a group. A ServiceAccount is the user of that name.
type subject struct {
	group bool
	name  string
}

// bindings are those of one subject in one scope.
type bindings struct {
	grants []*grant
	once   sync.Once // guards made
	made   table
}

// grant is what one binding gives to its subjects.
type grant struct {
	namespace string // of the RoleBinding; "" for a ClusterRoleBinding
	name      string
	ref       rbacv1.RoleRef
	subjects  []rbacv1.Subject
	rules     []rbacv1.PolicyRule
	err       error // the role does not exist; nil: it does
}

// newPolicy reads all roles and bindings.
func newPolicy(objects Objects, v versions) *policy {
	p := &policy{
		versions:     v,
		clusterRoles: map[string]*rbacv1.ClusterRole{},
		roles:        map[[2]string]*rbacv1.Role{},
		bindings:     map[string]map[subject]*bindings{"": {}},
	}
	for _, o := range objects.List(kube.ClusterRole, "") {
		if r, ok := o.(*rbacv1.ClusterRole); ok {
			p.clusterRoles[r.Name] = r
		}
	}
	for _, o := range objects.List(kube.Role, "") {
		if r, ok := o.(*rbacv1.Role); ok {
			p.roles[[2]string{r.Namespace, r.Name}] = r
		}
	}
	for _, o := range objects.List(kube.ClusterRoleBinding, "") {
		if b, ok := o.(*rbacv1.ClusterRoleBinding); ok {
			p.add("", b.Name, b.RoleRef, b.Subjects)
		}
	}
	for _, o := range objects.List(kube.RoleBinding, "") {
		if b, ok := o.(*rbacv1.RoleBinding); ok && b.Namespace != "" {
			p.add(b.Namespace, b.Name, b.RoleRef, b.Subjects)
		}
	}
	return p
}

// add records a binding under each of its subjects, once.
func (p *policy) add(namespace, name string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	g := &grant{namespace: namespace, name: name, ref: ref, subjects: subjects}
	g.rules, g.err = p.rulesOf(ref, namespace)
	scope := p.bindings[namespace]
	if scope == nil {
		scope = map[subject]*bindings{}
		p.bindings[namespace] = scope
	}
	for i := range subjects {
		id, ok := idOf(&subjects[i], namespace)
		if !ok {
			continue
		}
		b := scope[id]
		if b == nil {
			b = &bindings{}
			scope[id] = b
		}
		if !slices.Contains(b.grants, g) {
			b.grants = append(b.grants, g)
		}
	}
}

// rulesOf returns those of the role that a binding in namespace refers to.
func (p *policy) rulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "ClusterRole":
		if r := p.clusterRoles[ref.Name]; r != nil {
			return r.Rules, nil
		}
		return nil, apierrors.NewNotFound(rbacv1.Resource("clusterrole"), ref.Name)
	case "Role":
		if r := p.roles[[2]string{namespace, ref.Name}]; r != nil {
			return r.Rules, nil
		}
		return nil, apierrors.NewNotFound(rbacv1.Resource("role"), ref.Name)
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}

// bound returns the bindings of a subject in a scope; nil when there are none.
func (p *policy) bound(namespace string, id subject) *bindings { return p.bindings[namespace][id] }

// idOf returns who s is, in a binding of namespace; ok is false for a subject that nobody can be.
func idOf(s *rbacv1.Subject, namespace string) (id subject, ok bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{name: s.Name}, true
	case rbacv1.GroupKind:
		return subject{group: true, name: s.Name}, true
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		return subject{name: satoken.Username(namespace, s.Name)}, namespace != ""
	}
	return subject{}, false
}

// subjectsOf yields all subjects that u is: the user, and each of its groups.
func subjectsOf(u auth.User) iter.Seq[subject] {
	return func(yield func(subject) bool) {
		if !yield(subject{name: u.Name}) {
			return
		}
		for _, g := range u.Groups {
			if !yield(subject{group: true, name: g}) {
				return
			}
		}
	}
}

// describe returns which binding gives u the right, in upstream's words. It names the binding's first subject that u is.
func (g *grant) describe(u auth.User) string {
	var to string
	for i := range g.subjects {
		s := &g.subjects[i]
		id, ok := idOf(s, g.namespace)
		if !ok || id.group && !slices.Contains(u.Groups, id.name) || !id.group && id.name != u.Name {
			continue
		}
		to = fmt.Sprintf("%s %q", s.Kind, s.Name)
		if s.Kind == rbacv1.ServiceAccountKind {
			namespace := g.namespace
			if s.Namespace != "" {
				namespace = s.Namespace
			}
			to = fmt.Sprintf("%s %q", s.Kind, s.Name+"/"+namespace)
		}
		break
	}
	kind, name := "ClusterRoleBinding", g.name
	if g.namespace != "" {
		kind, name = "RoleBinding", g.name+"/"+g.namespace
	}
	return fmt.Sprintf("%s %q of %s %q to %s", kind, name, g.ref.Kind, g.ref.Name, to)
}
