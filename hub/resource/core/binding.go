package core

import (
	api "k8s.io/kubernetes/pkg/apis/core"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// bindingKind is the older way to bind a pod to a node: a Binding that names the pod, beside the subresource of the pod itself. Nothing of
// it is stored. It has no rules, as on Kubernetes: what a Binding lacks its handler says.
func bindingKind() *resource.Kind {
	k := resource.Declare(kube.Binding, "bindings", "binding")
	k.AnswerOnly()
	k.Rules = resource.Strategy[api.Binding]{}.Rules()
	return k
}
