package node

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"

	"petrel.dev/petrel/hub/auth"
)

// related reports whether an object is one that the node needs.
type related func(node, namespace, name string) bool

// get allows to get one object that is related to the node.
func (z *Authorizer) get(node string, a auth.Attributes, is related) (reason string, allowed bool) {
	switch {
	case a.Verb != "get":
		return "can only get individual resources of this type", false
	case a.Subresource != "":
		return "cannot get subresource", false
	}
	return one(node, a, is)
}

// read allows to get, list and watch one object that is related to the node.
func (z *Authorizer) read(node string, a auth.Attributes, is related) (reason string, allowed bool) {
	switch {
	case !slices.Contains([]string{"get", "list", "watch"}, a.Verb):
		return "can only read resources of this type", false
	case a.Subresource != "":
		return "cannot read subresource", false
	case a.Namespace == "":
		return "can only read namespaced object of this type", false
	}
	return one(node, a, is)
}

// one allows what is about one object that is related to the node.
func one(node string, a auth.Attributes, is related) (reason string, allowed bool) {
	switch {
	case a.Name == "":
		return "No Object name found", false
	case !is(node, a.Namespace, a.Name):
		return fmt.Sprintf("no relationship found between node '%s' and this object", node), false
	}
	return "", true
}

// token allows to request tokens of the accounts of the node's pods.
func (z *Authorizer) token(node string, a auth.Attributes) (reason string, allowed bool) {
	switch {
	case a.Verb != "create" || a.Name == "":
		return "can only create tokens for individual service accounts", false
	case a.Subresource != "token":
		return "can only create token subresource of serviceaccount", false
	}
	return one(node, a, z.usesAccount)
}

// claimStatus allows to report what became of a claim.
func (z *Authorizer) claimStatus(node string, a auth.Attributes) (reason string, allowed bool) {
	if a.Verb != "update" && a.Verb != "patch" {
		return "can only get/update/patch this type", false
	}
	return one(node, a, z.usesClaim)
}

// own allows everything with the one object of a kind that has the node's name. Admission checks the name of a new one.
func own(node string, a auth.Attributes, kind string) (reason string, allowed bool) {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, a.Verb):
		return fmt.Sprintf("can only get, create, update, patch, or delete a %s", kind), false
	case kind == "CSINode" && a.Subresource != "":
		return fmt.Sprintf("cannot authorize %s subresources", kind), false
	case kind == nodeLease && a.Namespace != corev1.NamespaceNodeLease:
		return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease), false
	case a.Verb != "create" && a.Name != node:
		return fmt.Sprintf("can only access %s with the same name as the requesting node", kind), false
	}
	return "", true
}

const nodeLease = "node lease"

// lease allows everything with the node's own Lease.
func lease(node string, a auth.Attributes) (reason string, allowed bool) {
	return own(node, a, nodeLease)
}

// ownNode allows to read the node's own Node, and to write one: admission checks which, and which of its fields.
func ownNode(node string, a auth.Attributes) (reason string, allowed bool) {
	switch a.Subresource + " " + a.Verb {
	case " create", " update", " patch", "status update", "status patch":
		return "", true
	case " get", " list", " watch":
		switch a.Name {
		case node:
			return "", true
		case "":
			return fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node), false
		}
		return fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, a.Name), false
	}
	return "", false
}

// pod allows to read the node's pods, and to write pods: admission checks which.
func (z *Authorizer) pod(node string, a auth.Attributes) (reason string, allowed bool) {
	switch a.Subresource + " " + a.Verb {
	case " get":
		return one(node, a, z.hasPod)
	case " list", " watch":
		switch {
		case selects(a.FieldSelector, "spec.nodeName", node):
			return "", true
		case a.Name != "":
			return one(node, a, z.hasPod)
		}
		return "can only list/watch pods with spec.nodeName field selector", false
	case " create", " delete", "status update", "status patch", "eviction create":
		return "", true
	}
	return "", false
}

// slice allows everything with the ResourceSlices of the node's own devices. Admission checks whose a new one is.
func (z *Authorizer) slice(node string, a auth.Attributes) (reason string, allowed bool) {
	if a.Subresource != "" {
		return "cannot authorize ResourceSlice subresources", false
	}
	switch a.Verb {
	case "create":
		return "", true
	case "get", "update", "patch", "delete":
		return one(node, a, z.ownsSlice)
	case "watch", "list", "deletecollection":
		if selects(a.FieldSelector, resourcev1.ResourceSliceSelectorNodeName, node) {
			return "", true
		}
		return "can only list/watch/deletecollection resourceslices with nodeName field selector", false
	}
	return "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection", false
}

// selects reports whether a field selector restricts a field to one value.
func selects(selector, field, value string) bool {
	s, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	for _, r := range s.Requirements() {
		if r.Field == field && r.Value == value && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) {
			return true
		}
	}
	return false
}
