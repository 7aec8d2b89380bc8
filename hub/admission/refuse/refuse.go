// Package refuse makes the errors with which admission refuses a write.
package refuse

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/registry"
)

// Forbidden refuses a, naming the object as far as its name is known: an object whose name is generated has none yet.
func Forbidden(a *registry.AdmissionRequest, why error) *apierrors.StatusError {
	name := a.Target.Name
	if name == "" && a.Object != nil {
		name = a.Object.GetName()
	}
	if name == "" && a.Object != nil {
		name = a.Object.GetGenerateName()
	}
	if name == "" {
		name = "Unknown"
	}
	return apierrors.NewForbidden(a.Target.Kind.Resource(), name, why)
}
