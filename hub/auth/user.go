package auth

import (
	"context"
	"net/http"
	"slices"
)

// User is the user of a request. Values are shared: read-only.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
	// ImpersonatedBy is who asked to be treated as this user; nil: nobody. What is allowed is decided about the user alone.
	ImpersonatedBy *User
}

// IsMaster reports whether u may do everything, an administrator or the hub itself.
func (u User) IsMaster() bool { return slices.Contains(u.Groups, GroupMasters) }

// Groups that authentication and authorization know by name; Kubernetes' own.
const (
	GroupAuthenticated   = "system:authenticated"
	GroupUnauthenticated = "system:unauthenticated"
	GroupMasters         = "system:masters"
	GroupNodes           = "system:nodes"
	groupServiceAccounts = "system:serviceaccounts"
)

// How the names of these users begin; Kubernetes' own.
const (
	accountPrefix = "system:serviceaccount:"
	nodePrefix    = "system:node:"
)

// AccountGroups returns the groups that every ServiceAccount of a namespace is in, besides GroupAuthenticated.
func AccountGroups(namespace string) []string {
	return []string{groupServiceAccounts, groupServiceAccounts + ":" + namespace}
}

// Anonymous is the user of a request without credentials.
var Anonymous = User{Name: "system:anonymous", Groups: []string{GroupUnauthenticated}}

type userKey struct{}

// WithUser returns a context for a request of u.
func WithUser(ctx context.Context, u User) context.Context {
	return context.WithValue(ctx, userKey{}, &u)
}

// UserFrom returns the user of a request's context: Anonymous, with the fewest rights, when it has none.
func UserFrom(ctx context.Context) User {
	if u, ok := ctx.Value(userKey{}).(*User); ok {
		return *u
	}
	return Anonymous
}

// Authenticator finds a request's user. ok is false when the request has no credentials; err is why its credentials were refused.
// Both are answered with 401.
type Authenticator interface {
	Authenticate(r *http.Request) (u User, ok bool, err error)
	// Until makes end be called, once and in a goroutine of its own, when the credentials of the request stop being accepted before
	// stop is called. It is for requests that go on for long.
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
	// FieldSelector of a list, watch or deletecollection, as the client sent it. When it selects one name, Name has that too.
	FieldSelector string
}

// Authorizer decides whether a user may do something. reason explains the decision to the user, where it needs explanation; an error
// is a refusal too.
type Authorizer interface {
	Authorize(ctx context.Context, u User, a Attributes) (allowed bool, reason string, err error)
}
