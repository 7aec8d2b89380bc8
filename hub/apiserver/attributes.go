package apiserver

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/fields"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/kube"
)

// attributes returns what the request is about, for the authorizer.
func (x *exchange) attributes() auth.Attributes {
	a := auth.Attributes{Verb: x.verb, Path: x.r.URL.Path}
	k := x.t.Kind
	if k == nil {
		x.unserved(&a)
		x.selected(&a)
		return a
	}
	a.Resource, a.APIGroup, a.APIVersion, a.Plural = true, k.GVK.Group, k.GVK.Version, k.Plural
	a.Subresource, a.Namespace, a.Name = x.t.Subresource, x.t.Namespace, x.t.Name
	if k.GVK == kube.Namespace {
		a.Namespace = a.Name // a Namespace is in itself: a RoleBinding in it covers it
	}
	x.selected(&a)
	if x.sub != nil && x.sub.Connect && !x.sub.Proxy && x.t.Subresource != "log" {
		a.Verb = "create" // a WebSocket begins with GET, but to run a command is more than to read (as Kubernetes since 1.35)
	}
	return a
}

// selected fills in what a request about many objects selects. A list or watch of one name is about that object; a deletion is not, as
// on Kubernetes.
func (x *exchange) selected(a *auth.Attributes) {
	if a.Verb != "list" && a.Verb != "watch" && a.Verb != "deletecollection" {
		return
	}
	a.FieldSelector = x.query.Get("fieldSelector")
	if a.Name != "" || a.Verb == "deletecollection" {
		return
	}
	if s, err := fields.ParseSelector(a.FieldSelector); err == nil {
		if name, ok := s.RequiresExactMatch("metadata.name"); ok && len(content.IsPathSegmentName(name)) == 0 {
			a.Name = name
		}
	}
}

// unserved fills in what a path is about that no kind has. One that looks like an object's counts as one: who may read what the API
// serves must not be able to read the objects of a kind that comes later.
func (x *exchange) unserved(a *auth.Attributes) {
	p := segments(x.r.URL.Path)
	switch {
	case len(p) >= 3 && p[0] == "api":
		a.APIVersion, p = p[1], p[2:]
	case len(p) >= 4 && p[0] == "apis":
		a.APIGroup, a.APIVersion, p = p[1], p[2], p[3:]
	default:
		a.Verb = strings.ToLower(x.r.Method)
		return
	}
	a.Resource = true
	p, watching := unprefixed(p)
	if p[0] == "namespaces" && len(p) > 2 && p[2] != "status" && p[2] != "finalize" {
		a.Namespace, p = p[1], p[2:]
	}
	p = append(p, "", "")
	a.Plural, a.Name, a.Subresource = p[0], p[1], p[2]
	a.Verb = verbOf(x.r.Method, a.Name != "", watching, x.query)
}
