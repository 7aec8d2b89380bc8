// Package rbac decides by the stored Roles, ClusterRoles and their bindings, as Kubernetes does: rules only add rights, and what no
// rule allows is refused.
//
//	hub/objects ─ versions ─► policy: who is bound ─► table of one subject: rules by resource ─► allowed, or not
//
// The policy is derived from the typed cache, anew when the version of one of the four kinds has changed, by the first request after
// that. A subject's table is made when it first asks. So what a request costs depends neither on how many roles and bindings there
// are, nor on how many rules its user has for other resources.
//
// A binding that was committed before a request counts for it: what is refused is decided again once the cache has caught up. One that
// was deleted may still count for as long as the cache is behind the store, a moment.
package rbac

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads the stored roles and bindings; *objects.Cache is one.
type Objects interface {
	List(gvk kube.GVK, namespace string) []kube.Object
	// Version returns a number that is another one after each change that List shows.
	Version(gvk kube.GVK) uint64
	// CatchUp returns nil once List shows all that was committed before the call.
	CatchUp(ctx context.Context) error
}

// Authorizer is an auth.Policy. It is safe for concurrent use.
type Authorizer struct {
	objects Objects
	current atomic.Pointer[policy] // nil until the first request
	build   sync.Mutex             // held while a policy is made, so that one request makes it for all
}

// New returns an Authorizer that decides by what objects has.
func New(objects Objects) *Authorizer { return &Authorizer{objects: objects} }

// Authorize implements auth.Authorizer. The reason says which binding allows it, or which roles of the user's bindings are missing.
func (z *Authorizer) Authorize(ctx context.Context, u auth.User, a auth.Attributes) (allowed bool, reason string, err error) {
	p := z.policy()
	if allowed, reason = p.decide(u, a); allowed {
		return true, reason, nil
	}
	if !auth.CaughtUp(ctx, z.objects.CatchUp) {
		return false, reason, nil // undecided is refused; the client may ask again
	}
	if now := z.policy(); now != p {
		allowed, reason = now.decide(u, a)
	}
	return allowed, reason, nil
}

// policy returns the policy of what the cache shows now.
func (z *Authorizer) policy() *policy {
	if p := z.current.Load(); p != nil && p.versions == z.versions() {
		return p
	}
	z.build.Lock()
	defer z.build.Unlock()
	v := z.versions() // before the lists: after a change between the two the next request makes it again
	p := z.current.Load()
	if p == nil || p.versions != v {
		p = newPolicy(z.objects, v)
		z.current.Store(p)
	}
	return p
}

// versions are those of the four kinds.
type versions [4]uint64

func (z *Authorizer) versions() versions {
	return versions{
		z.objects.Version(kube.ClusterRoleBinding), z.objects.Version(kube.ClusterRole),
		z.objects.Version(kube.RoleBinding), z.objects.Version(kube.Role),
	}
}

// decide returns whether a rule allows a, bindings of the cluster first.
func (p *policy) decide(u auth.User, a auth.Attributes) (allowed bool, reason string) {
	var missing []error
	for _, namespace := range scopes(a.Namespace) {
		for id := range subjectsOf(u) {
			b := p.bound(namespace, id)
			if b == nil {
				continue
			}
			t := b.table()
			if g := t.allows(a); g != nil {
				return true, "RBAC: allowed by " + g.describe(u)
			}
			for _, err := range t.missing {
				if !slices.ContainsFunc(missing, func(have error) bool { return have.Error() == err.Error() }) {
					missing = append(missing, err)
				}
			}
		}
	}
	if len(missing) == 0 {
		return false, ""
	}
	return false, "RBAC: " + utilerrors.NewAggregate(missing).Error()
}

// scopes returns where the bindings are that count in a namespace: "" stands for those of the cluster.
func scopes(namespace string) []string {
	if namespace == "" {
		return clusterScope
	}
	return []string{"", namespace}
}

var clusterScope = []string{""}
