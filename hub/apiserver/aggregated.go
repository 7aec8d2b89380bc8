package apiserver

import (
	"bytes"
	"context"
	"io"
	"net/http"

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

// serveRemote passes a request on to the server of its APIService, with the bounds of any other request: its body has been read, and
// only a watch or an upgrade may go on for long.
func (s *server) serveRemote(x *exchange) {
	ctx, cancel := s.untilClosing(x.ctx)
	defer cancel()
	x.ctx = ctx
	if !x.longRunning() {
		body, err := x.readBody()
		if err != nil {
			x.fail(err)
			return
		}
		x.r.Body, x.r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	s.Aggregated.Serve(x.w, x.r.WithContext(ctx), auth.UserFrom(ctx), x.remoteOf, x.fail)
}
