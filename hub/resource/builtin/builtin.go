// Package builtin gathers the kinds of Kubernetes that Petrel serves. Each API group has a room beside this one.
package builtin

import (
	"slices"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/admissionregistration"
	"petrel.dev/petrel/hub/resource/apiextensions"
	"petrel.dev/petrel/hub/resource/apiregistration"
	"petrel.dev/petrel/hub/resource/apps"
	"petrel.dev/petrel/hub/resource/autoscaling"
	"petrel.dev/petrel/hub/resource/batch"
	"petrel.dev/petrel/hub/resource/certificates"
	"petrel.dev/petrel/hub/resource/coordination"
	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/hub/resource/discovery"
	"petrel.dev/petrel/hub/resource/dra"
	"petrel.dev/petrel/hub/resource/flowcontrol"
	"petrel.dev/petrel/hub/resource/metrics"
	"petrel.dev/petrel/hub/resource/networking"
	"petrel.dev/petrel/hub/resource/node"
	"petrel.dev/petrel/hub/resource/policy"
	"petrel.dev/petrel/hub/resource/rbac"
	"petrel.dev/petrel/hub/resource/review"
	"petrel.dev/petrel/hub/resource/scheduling"
	"petrel.dev/petrel/hub/resource/storage"
)

// New returns the built-in kinds. Discovery shows groups in this order, which is upstream's: where a name is in several groups,
// kubectl takes the first.
func New() *resource.Kinds {
	kinds, err := resource.New(slices.Concat(
		core.Kinds(),
		apiregistration.Kinds(),
		apps.Kinds(),
		review.Kinds(),
		autoscaling.Kinds(),
		batch.Kinds(),
		certificates.Kinds(),
		networking.Kinds(),
		policy.Kinds(),
		rbac.Kinds(),
		storage.Kinds(),
		admissionregistration.Kinds(),
		apiextensions.Kinds(),
		scheduling.Kinds(),
		coordination.Kinds(),
		node.Kinds(),
		discovery.Kinds(),
		metrics.Kinds(),
		flowcontrol.Kinds(),
		dra.Kinds(),
	)...)
	if err != nil {
		panic(err) // the declarations contradict each other, which TestKindsAreComplete would have shown
	}
	return kinds
}
