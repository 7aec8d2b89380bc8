package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/apps/validation"

	"petrel.dev/petrel/hub/resource"
)

// controllerRevisionKind is what controllers, also those of others, keep of a workload's earlier states.
func controllerRevisionKind() *resource.Kind {
	k := resource.Declare(appsv1.SchemeGroupVersion.WithKind("ControllerRevision"), "controllerrevisions", "controllerrevision")
	k.Rules = resource.Strategy[apps.ControllerRevision]{
		ValidateCreate: validation.ValidateControllerRevisionCreate,
		ValidateUpdate: func(r, old *apps.ControllerRevision) field.ErrorList {
			return validation.ValidateControllerRevisionUpdate(r, old)
		},
	}.Rules()
	return k
}
