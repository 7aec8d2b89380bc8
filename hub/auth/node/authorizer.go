// Package node limits what a node may do that uses the API under its own name, as Kubernetes' node authorizer does: it reads the
// Secrets, ConfigMaps, claims, volumes and accounts of the pods that are bound to it, and its own Node, Lease and CSINode. Agents of
// Petrel have no such name, because they use the link; a kubelet, or a certificate system:node:NAME in the wrong hands, has.
//
// There is no graph of references beside the objects: a question is answered from the pods of one node, which the cache finds by its
// index. hub/admission/nodes is the other half: what a node may write into the objects that it may reach.
package node

import (
	"context"
	"errors"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/rbac"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads what is stored; *objects.Cache is one.
type Objects interface {
	Get(gvk kube.GVK, namespace, name string) (kube.Object, bool)
	// Index returns the objects that the kind's index lists under value.
	Index(gvk kube.GVK, index, value string) []kube.Object
	// CatchUp returns nil once reads show all that was committed before the call.
	CatchUp(ctx context.Context) error
}

// Config of an Authorizer. All fields are required.
type Config struct {
	Objects Objects
	// Rules are the same for all nodes, for objects that are not divided among them.
	Rules []rbacv1.PolicyRule
	// PodSecrets and PodConfigMaps return the names that a pod refers to in its own namespace, VolumeSecrets the namespaces and
	// names that a kubelet needs to mount a volume.
	PodSecrets, PodConfigMaps func(*corev1.Pod) []string
	VolumeSecrets             func(*corev1.PersistentVolume) [][2]string
}

// Authorizer is an auth.Policy for nodes; it has no opinion about others. It is immutable, and safe for concurrent use.
type Authorizer struct{ cfg Config }

// New returns an Authorizer, or what is missing in cfg.
func New(cfg Config) (*Authorizer, error) {
	if cfg.Objects == nil || cfg.Rules == nil || cfg.PodSecrets == nil || cfg.PodConfigMaps == nil || cfg.VolumeSecrets == nil {
		return nil, errors.New("node authorizer: Config has a field that is not set")
	}
	return &Authorizer{cfg}, nil
}

// RulesFor implements auth.Policy. The rights of a node depend on its pods, and have no form as rules.
func (z *Authorizer) RulesFor(_ context.Context, u auth.User, _ string) (out authorizationv1.SubjectRulesReviewStatus) {
	if _, ok := auth.NodeOf(u); ok {
		out.Incomplete = true
		out.EvaluationError = "node authorizer does not support user rule resolution"
	}
	return out
}

// Authorize implements auth.Authorizer. Reasons are upstream's.
func (z *Authorizer) Authorize(ctx context.Context, u auth.User, a auth.Attributes) (allowed bool, reason string, err error) {
	name, ok := auth.NodeOf(u)
	switch {
	case !ok:
		return false, "", nil
	case name == "":
		return false, fmt.Sprintf("unknown node for user %q", u.Name), nil
	}
	reason, allowed = z.decide(name, a)
	if !allowed && a.Resource && auth.CaughtUp(ctx, z.cfg.Objects.CatchUp) {
		reason, allowed = z.decide(name, a) // a pod may have been bound a moment ago
	}
	return allowed, reason, nil
}

// decide returns whether a node may do a, and otherwise why not. What is not divided among the nodes is in the common rules.
func (z *Authorizer) decide(node string, a auth.Attributes) (reason string, allowed bool) {
	if !a.Resource {
		return "", rbac.Allows(z.cfg.Rules, a)
	}
	switch a.APIGroup + "/" + a.Plural {
	case "/secrets":
		return z.read(node, a, z.usesSecret)
	case "/configmaps":
		return z.read(node, a, z.usesConfigMap)
	case "/serviceaccounts":
		if a.Verb == "get" && a.Subresource == "" {
			return z.read(node, a, z.usesAccount)
		}
		return z.token(node, a)
	case "/persistentvolumeclaims":
		if a.Subresource == "status" {
			return z.claimStatus(node, a)
		}
		return z.get(node, a, z.usesClaim)
	case "/persistentvolumes":
		return z.get(node, a, z.usesVolume)
	case "resource.k8s.io/resourceclaims":
		return z.get(node, a, z.usesResourceClaim)
	case "storage.k8s.io/volumeattachments":
		return z.get(node, a, z.hasAttachment)
	case "resource.k8s.io/resourceslices":
		return z.slice(node, a)
	case "storage.k8s.io/csinodes":
		return own(node, a, "CSINode")
	case "coordination.k8s.io/leases":
		return lease(node, a)
	case "/nodes":
		return ownNode(node, a)
	case "/pods":
		return z.pod(node, a)
	case "certificates.k8s.io/podcertificaterequests": // not served
		return "", false
	}
	return "", rbac.Allows(z.cfg.Rules, a)
}
