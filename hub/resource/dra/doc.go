// Package dra declares the kinds of resource.k8s.io: dynamic resource allocation.
package dra

import (
	_ "k8s.io/kubernetes/pkg/apis/resource/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{deviceClassKind(), claimKind(), claimTemplateKind(), sliceKind()}
}
