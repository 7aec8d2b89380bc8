// Package policy declares the kinds of the group policy.
package policy

import (
	_ "k8s.io/kubernetes/pkg/apis/policy/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		podDisruptionBudgetKind(),
	}
}
