// Package podverbs holds the subresources that are verbs: a pod's binding and eviction, and a ServiceAccount's token; and Bindings, which
// are a pod's binding under another path. Each is a resource.Handler for its kind; the registry reads, admits and commits the objects.
//
//	POST .../pods/NAME/binding ─► registry ─► binding.Handle ─► Objects.Update ─► admission → change → commit
package podverbs

import (
	"errors"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Install sets the handlers of the declared kinds. It must be called before the kinds are shared. Without tokens (nil) requests
// for one are answered 503.
func Install(kinds *resource.Kinds, tokens TokenIssuer) error {
	pods, ok := kinds.Lookup(kube.Pod)
	if !ok {
		return errors.New("podverbs: Pod is not declared")
	}
	return errors.Join(
		kinds.Handle(kube.Pod, "binding", binding{}),
		kinds.Handle(kube.Binding, "", bindings{pods}),
		kinds.Handle(kube.Pod, "eviction", eviction{}),
		kinds.Handle(kube.ServiceAccount, "token", &token{issuer: tokens}),
	)
}
