// Package batch declares the kinds of the group batch.
package batch

import (
	_ "k8s.io/kubernetes/pkg/apis/batch/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{cronJobKind(), jobKind()} }
