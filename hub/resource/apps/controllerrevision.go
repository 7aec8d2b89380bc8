package apps

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// controllerRevisionKind is what controllers, also those of others, keep of a workload's earlier states.
func controllerRevisionKind() *resource.Kind {
	k := resource.Declare(kube.ControllerRevision, "controllerrevisions", "controllerrevision")
	k.Rules = resource.Strategy[apps.ControllerRevision]{
		ValidateCreate: validation.ValidateControllerRevisionCreate,
		ValidateUpdate: func(r, old *apps.ControllerRevision) field.ErrorList {
			return validation.ValidateControllerRevisionUpdate(r, old)
		},
	}.Rules()
	return k
}
