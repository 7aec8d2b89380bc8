// Package apps declares the kinds of the group apps.
package apps

import (
	_ "k8s.io/kubernetes/pkg/apis/apps/install"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		controllerRevisionKind(),
		daemonSetKind(),
		deploymentKind(),
		replicaSetKind(),
		statefulSetKind(),
	}
}
