// Package core declares the kinds of the core group, and events.k8s.io, which is another view of its events.
package core

import (
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	event := eventKind()
	return []*resource.Kind{
		bindingKind(),
		componentStatusKind(),
		configMapKind(),
		endpointsKind(),
		event,
		limitRangeKind(),
		namespaceKind(),
		nodeKind(),
		persistentVolumeClaimKind(),
		persistentVolumeKind(),
		podKind(),
		podTemplateKind(),
		replicationControllerKind(),
		resourceQuotaKind(),
		secretKind(),
		serviceAccountKind(),
		serviceKind(),
		eventViewKind(event),
	}
}
