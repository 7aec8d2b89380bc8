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

// Request is who wants to change what. Everything that decides about a write sees the same one: a kind's Rules (by
// RequestFrom), admission, and the Handler of a subresource. It is shared: read-only.
type Request struct {
	Target
	User auth.User
	// Manager is the field manager: the program that the fields which the request sets belong to, as it names itself. "" when
	// it does not; deletions over HTTP have none.
	Manager string
	DryRun  bool // everything is done but the commit
	// Preconditions narrow down which object is meant, beyond its name; nil: any that has it.
	Preconditions *metav1.Preconditions
}

type requestKey struct{}

// WithRequest returns a context in which RequestFrom finds q.
func WithRequest(ctx context.Context, q *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, q)
}

// RequestFrom returns the request that a rule is asked for; nil outside of one.
func RequestFrom(ctx context.Context) *Request {
	q, _ := ctx.Value(requestKey{}).(*Request)
	return q
}
