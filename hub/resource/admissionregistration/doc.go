// Package admissionregistration declares the kinds of admissionregistration.k8s.io.
package admissionregistration

import (
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"

	"petrel.dev/petrel/hub/resource"
)

// extensions is the category of all of them.
var extensions = []string{"api-extensions"}

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		mutatingPolicyBindingKind(),
		mutatingPolicyKind(),
		mutatingWebhookKind(),
		validatingPolicyBindingKind(),
		validatingPolicyKind(),
		validatingWebhookKind(),
	}
}
