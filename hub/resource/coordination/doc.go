// Package coordination declares the kinds of coordination.k8s.io.
package coordination

import (
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		leaseKind(),
	}
}
