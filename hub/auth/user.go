package auth

import (
	"context"
	"net/http"
	"slices"
)

// User is who asks. Values are shared: read-only.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// IsMaster reports whether u may do everything, an administrator or the hub itself.
func (u User) IsMaster() bool { return slices.Contains(u.Groups, groupMasters) }

// Groups that authentication and authorization know by name; Kubernetes' own.
const (
	groupAuthenticated   = "system:authenticated"
	groupUnauthenticated = "system:unauthenticated"
	groupMasters         = "system:masters"
	groupServiceAccounts = "system:serviceaccounts"
)

// Anonymous is the user of a request without credentials.
var Anonymous = User{Name: "system:anonymous", Groups: []string{groupUnauthenticated}}

type userKey struct{}

// WithUser returns a context of what u asks for.
func WithUser(ctx context.Context, u User) context.Context {
	return context.WithValue(ctx, userKey{}, &u)
}

// UserFrom returns who asks for what ctx is of: Anonymous, who may least, when nobody has been named.
func UserFrom(ctx context.Context) User {
	if u, ok := ctx.Value(userKey{}).(*User); ok {
		return *u
	}
	return Anonymous
}

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
