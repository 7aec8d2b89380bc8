package auth

import (
	"context"
	"net/http"
)

// User is who asks. Values are shared: read-only.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// Groups that authentication and authorization know by name; Kubernetes' own.
const (
	groupAuthenticated   = "system:authenticated"
	groupUnauthenticated = "system:unauthenticated"
	groupMasters         = "system:masters"
	groupServiceAccounts = "system:serviceaccounts"
)

// Anonymous is the user of a request without credentials.
var Anonymous = User{Name: "system:anonymous", Groups: []string{groupUnauthenticated}}

// Authenticator finds out who sends a request. ok is false when the request carries no credentials; err says why those it
// carries were refused. Both are answered with 401.
type Authenticator interface {
	Authenticate(r *http.Request) (u User, ok bool, err error)
	// Until has end called, once and in a goroutine of its own, when the credentials that let the request in stop being
	// accepted before stop is called: for requests that go on for long.
	Until(r *http.Request, end func()) (stop func())
}

// Attributes are what a request is about, as authorization sees it.
type Attributes struct {
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection; the lower-case method for other paths
	Path        string
	Resource    bool // false for paths that are no objects of a served kind: /api, /openapi, /metrics
	APIGroup    string
	APIVersion  string
	Plural      string
	Subresource string
	Namespace   string
	Name        string
}

// Authorizer decides whether a user may do something. reason explains a refusal to the person who gets it; an error is a
// refusal too.
type Authorizer interface {
	Authorize(ctx context.Context, u User, a Attributes) (allowed bool, reason string, err error)
}
