// Package scheduling declares the kinds of scheduling.k8s.io.
package scheduling

import (
	"k8s.io/kubernetes/pkg/apis/scheduling"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	"k8s.io/kubernetes/pkg/apis/scheduling/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{priorityClassKind()} }

// priorityClassKind is obeyed by admission, which gives each new pod the number of its class.
func priorityClassKind() *resource.Kind {
	k := resource.Declare(kube.PriorityClass, "priorityclasses", "priorityclass")
	k.ClusterScoped()
	k.ShortNames = []string{"pc"}
	k.Rules = resource.Strategy[scheduling.PriorityClass]{
		PrepareCreate:  func(c *scheduling.PriorityClass) { c.Generation = 1 },
		ValidateCreate: validation.ValidatePriorityClass,
		ValidateUpdate: validation.ValidatePriorityClassUpdate,
	}.Rules()
	return k
}
