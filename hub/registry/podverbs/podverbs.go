// Package podverbs holds the subresources that are verbs: a pod's binding and eviction, and a ServiceAccount's token. Each is
// a resource.Handler: it knows its kind, and leaves to the registry how objects are read, admitted and committed.
//
//	POST .../pods/NAME/binding ─► registry ─► binding.Handle ─► Objects.Update ─► admission → change → commit
package podverbs

import (
	"errors"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Install gives the declared kinds their handlers. It comes before the kinds are shared. Without tokens (nil) requests
// for one are answered 503.
func Install(kinds *resource.Kinds, tokens TokenIssuer) error {
	return errors.Join(
		kinds.Handle(kube.Pod, "binding", binding{}),
		kinds.Handle(kube.Pod, "eviction", eviction{}),
		kinds.Handle(kube.ServiceAccount, "token", &token{issuer: tokens}),
	)
}
