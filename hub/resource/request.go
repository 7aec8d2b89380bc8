package resource

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
)

// Target is what a request is about.
type Target struct {
	Kind        *Kind
	Namespace   string // "" for cluster scope, or for all namespaces in a list or watch
	Name        string // "" in a creation, list, watch or deletion of a collection
	Subresource string
}

// Request is a write with its user. Everything that decides about the write gets the same one: a kind's Rules (by
// RequestFrom), admission, and the Handler of a subresource. It is shared: read-only.
type Request struct {
	Target
	User auth.User
	// Manager is the field manager: the program that owns the fields which the request sets, by its own name. "" when it
	// has none; deletions over HTTP have none.
	Manager string
	DryRun  bool // everything is done but the commit
	// FieldValidation is the client's, as it was sent: Ignore, Warn, Strict, or "". Admission reviews show it.
	FieldValidation string
	// Preconditions restrict which object of that name is meant; nil: any.
	Preconditions *metav1.Preconditions
}

type requestKey struct{}

// WithRequest returns a context in which RequestFrom finds q.
func WithRequest(ctx context.Context, q *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, q)
}

// RequestFrom returns the request that a rule is called for; nil outside of one.
func RequestFrom(ctx context.Context) *Request {
	q, _ := ctx.Value(requestKey{}).(*Request)
	return q
}
