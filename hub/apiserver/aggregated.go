package apiserver

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/apiserver/discovery"
	"petrel.dev/petrel/hub/auth"
)

// Aggregated are the API servers behind this one; hub/aggregate is one.
type Aggregated interface {
	discovery.Remotes
	// Remote returns the APIService whose server serves a version of a group; ok is false when it is this server's own.
	Remote(gv schema.GroupVersion) (svc *apiregistrationv1.APIService, ok bool)
	// Serve passes a request on as the user's. fail answers with a Status, before anything else was answered.
	Serve(w http.ResponseWriter, r *http.Request, user auth.User, svc *apiregistrationv1.APIService, fail func(error))
}

// remotes returns the servers behind this one; nil when there can be none.
func (s *server) remotes() discovery.Remotes {
	if s.Aggregated == nil {
		return nil
	}
	return s.Aggregated
}

// remote returns the APIService that a path belongs to, nil for a path of this server. The schemas of a version are its server's too.
func (s *server) remote(p []string) *apiregistrationv1.APIService {
	if len(p) == 5 && p[0] == "openapi" && p[1] == "v3" {
		p = p[2:]
	}
	if s.Aggregated == nil || len(p) < 3 || p[0] != "apis" {
		return nil
	}
	if svc, ok := s.Aggregated.Remote(schema.GroupVersion{Group: p[1], Version: p[2]}); ok {
		return svc
	}
	return nil
}

// remoteAttributes returns what a request to another API server is about: its path has the same form as those of this server, though
// the kind is not known here.
func (x *exchange) remoteAttributes(p []string) auth.Attributes {
	a := auth.Attributes{Verb: strings.ToLower(x.r.Method), Path: x.r.URL.Path}
	if len(p) < 4 || p[0] == "openapi" { // discovery
		return a
	}
	a.Resource, a.APIGroup, a.APIVersion, a.Verb = true, p[1], p[2], x.verb
	p = p[3:]
	if p[0] == "watch" && len(p) > 1 {
		p = p[1:]
	}
	if p[0] == "namespaces" && len(p) > 1 {
		if a.Namespace = p[1]; len(p) > 2 {
			p = p[2:]
		}
	}
	a.Plural = p[0]
	if len(p) > 1 {
		a.Name = p[1]
	}
	if len(p) > 2 {
		a.Subresource = p[2]
	}
	return a
}

// remoteVerb returns the verb of a request to another API server.
func (x *exchange) remoteVerb(p []string) string {
	if len(p) < 4 || p[0] == "openapi" {
		return verbOf(x.r.Method, true, false, "")
	}
	a := x.remoteAttributes(p)
	watching := x.query.Get("watch") == "true" || x.query.Get("watch") == "1" || p[3] == "watch" && len(p) > 4
	return verbOf(x.r.Method, a.Name != "", watching && a.Subresource == "", x.query.Get("fieldSelector"))
}

// serveRemote passes a request on to the server of its APIService, with the bounds of any other request: its body has been read, and
// only a watch or an upgrade may go on for long.
func (s *server) serveRemote(x *exchange) {
	ctx, cancel := s.untilClosing(x.ctx)
	defer cancel()
	x.ctx = ctx
	if x.verb != "watch" {
		body, err := x.readBody()
		if err != nil {
			x.fail(err)
			return
		}
		x.r.Body, x.r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if x.r.Header.Get("Upgrade") == "" {
			ctx, cancel = context.WithTimeout(ctx, requestTimeout)
			defer cancel()
		}
	}
	s.Aggregated.Serve(x.w, x.r.WithContext(ctx), x.user, x.remoteOf, x.fail)
}
