package core

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// componentStatusKind shows what the hub is made of. Nothing of it is stored: the hub says what there is (Kinds.Compute).
func componentStatusKind() *resource.Kind {
	k := resource.Declare(kube.ComponentStatus, "componentstatuses", "componentstatus")
	k.ClusterScoped()
	k.ShortNames = []string{"cs"}
	k.Verbs = []string{"get", "list"}
	k.Deprecated = "v1 ComponentStatus is deprecated in v1.19+"
	k.Rules = resource.Strategy[api.ComponentStatus]{ // of no effect: it cannot be written
		ValidateCreate: func(*api.ComponentStatus) field.ErrorList { return nil },
		ValidateUpdate: func(_, _ *api.ComponentStatus) field.ErrorList { return nil },
	}.Rules()
	return k
}
