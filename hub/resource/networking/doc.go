// Package networking declares the kinds of networking.k8s.io.
package networking

import (
	_ "k8s.io/kubernetes/pkg/apis/networking/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		ipAddressKind(),
		ingressKind(),
		ingressClassKind(),
		networkPolicyKind(),
		serviceCIDRKind(),
	}
}
