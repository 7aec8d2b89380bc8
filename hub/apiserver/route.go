package apiserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// route calls what serves a request that has passed the filters.
func (s *server) route(w http.ResponseWriter, r *http.Request) {
	x := exchangeFrom(r)
	x.w, x.r, x.ctx = w, r, r.Context()
	p := segments(r.URL.Path)
	switch {
	case x.remoteOf != nil:
		s.serveRemote(x)
	case len(p) == 0:
		s.servePaths(x)
	case p[0] == "api" || p[0] == "apis":
		s.routeAPI(x, p)
	case p[0] == "openapi":
		s.serveOpenAPI(x, p[1:])
	case p[0] == "version" && len(p) == 1:
		x.writeJSON(http.StatusOK, s.Version)
	case p[0] == "metrics" && len(p) == 1:
		s.metrics.ServeHTTP(w, r)
	case isHealthPath(p[0]):
		s.serveHealth(x, p)
	case s.JWKS != nil && (r.URL.Path == "/openid/v1/jwks" || r.URL.Path == "/.well-known/openid-configuration"):
		s.serveOpenID(x)
	default:
		x.fail(errNoSuchPath())
	}
}

// segments splits a path, without empty parts at its ends.
func segments(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// routeAPI serves paths below /api and /apis: discovery by their number of parts, everything else by the target found before.
func (s *server) routeAPI(x *exchange, p []string) {
	switch {
	case p[0] == "api" && len(p) == 1, p[0] == "apis" && len(p) == 1:
		x.serveRoot(p[0])
	case p[0] == "apis" && len(p) == 2:
		x.serveGroup(p[1])
	case p[0] == "api" && len(p) == 2:
		x.serveVersion(schema.GroupVersion{Version: p[1]})
	case p[0] == "apis" && len(p) == 3:
		x.serveVersion(schema.GroupVersion{Group: p[1], Version: p[2]})
	case x.t.Kind == nil:
		x.fail(errNoSuchPath())
	default:
		s.serveObject(x)
	}
}

// target returns what an object path names; ok is false when no served kind has the path.
func (s *server) target(p []string, method string, query url.Values) (t resource.Target, sub *resource.Subresource, verb string, ok bool) {
	var gv schema.GroupVersion
	switch {
	case len(p) >= 3 && p[0] == "api":
		gv, p = schema.GroupVersion{Version: p[1]}, p[2:]
	case len(p) >= 4 && p[0] == "apis":
		gv, p = schema.GroupVersion{Group: p[1], Version: p[2]}, p[3:]
	default:
		return t, nil, "", false
	}
	p, watching := unprefixed(p)
	// namespaces/NS/PLURAL...; namespaces/NAME and namespaces/NAME/SUBRESOURCE are about the Namespace itself.
	if p[0] == "namespaces" && len(p) >= 3 {
		if p[1] == "" { // probably a script's empty variable, which must not mean all namespaces
			return t, nil, "", false
		}
		k := s.kinds().Kind(gv.WithResource(p[2]))
		if k != nil && k.Namespaced {
			t.Namespace, p = p[1], p[2:]
		} else if len(p) > 3 || gv.Group != "" {
			return t, nil, "", false
		}
	}
	t.Kind = s.kinds().Kind(gv.WithResource(p[0]))
	if t.Kind == nil || len(p) > 3 && !proxied(t.Kind, p[2]) {
		return t, nil, "", false
	}
	if len(p) > 1 {
		if t.Name = p[1]; t.Name == "" || t.Kind.Namespaced && t.Namespace == "" || !t.Kind.Named() {
			return t, nil, "", false
		}
	}
	if len(p) >= 3 {
		t.Subresource = p[2]
		if sub = t.Kind.Subresources[p[2]]; sub == nil || watching {
			return t, nil, "", false
		}
	}
	return t, sub, verbOf(method, t.Name != "", watching, query), true
}

// unprefixed takes the deprecated prefix watch/ off a path below a version, which some clients still use, and reports whether it was
// there.
func unprefixed(p []string) (rest []string, watching bool) {
	if p[0] == "watch" && len(p) > 1 {
		return p[1:], true
	}
	return p, false
}

// verbOf returns what a request does. Only its path makes a request about one object a watch; the parameter watch counts for many, and
// is read as Kubernetes does: everything but "false" and "0" is true, an empty one too.
func verbOf(method string, named, prefixed bool, query url.Values) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		asked := query["watch"]
		switch {
		case prefixed, !named && len(asked) > 0 && asked[0] != "0" && !strings.EqualFold(asked[0], "false"):
			return "watch"
		case named:
			return "get"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if named {
			return "delete"
		}
		return "deletecollection"
	}
	return "other" // not the method's name: clients must not be able to create metric labels
}

// allowed reports whether the kind, or subresource, has the verb at this path.
func (x *exchange) allowed() bool {
	k := x.t.Kind
	switch {
	case x.sub != nil && x.sub.Proxy:
		return slices.Contains(proxyMethods, x.r.Method)
	case x.sub != nil && x.sub.Connect:
		return x.verb == "get" || x.verb == "create"
	case x.sub != nil:
		return slices.Contains(x.sub.Verbs, x.verb)
	case x.verb == "create" && (x.t.Name != "" || k.Namespaced && x.t.Namespace == ""):
		return false
	case x.verb == "deletecollection" && k.Namespaced && x.t.Namespace == "":
		return false
	}
	return slices.Contains(k.Verbs, x.verb)
}

// errNoSuchPath returns the error that kubectl shows as "the server could not find the requested resource".
func errNoSuchPath() error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false)
}

// serveObject serves a request whose path names a served kind, by its verb.
func (s *server) serveObject(x *exchange) {
	if !x.allowed() {
		x.fail(apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, x.r.Method, schema.GroupResource{}, "", "", 0, false))
		return
	}
	if w := x.t.Kind.Deprecated; w != "" {
		x.warn(w)
	}
	if x.sub != nil && x.sub.Proxy {
		s.serveProxy(x)
		return
	}
	if x.sub != nil && x.sub.Connect {
		s.serveStream(x)
		return
	}
	switch x.verb {
	case "list":
		x.list()
	case "watch":
		x.watch()
	default:
		x.short()
	}
}
