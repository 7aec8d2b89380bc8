package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// topologyLabels are those that a pod gets from its node, so that it can read them by the downward API.
var topologyLabels = []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// topology labels pods by where their node is.
type topology struct{ objects Objects }

// label labels a pod that is bound to a node, or created on one.
func (t *topology) label(_ context.Context, a *registry.AdmissionRequest) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != registry.OpCreate {
		return nil
	}
	name := ""
	switch binding, _ := a.Body.(*corev1.Binding); {
	case a.Subresource == "":
		name = pod.Spec.NodeName
	case a.Subresource == "binding" && binding != nil && binding.Target.Kind == kube.Node.Kind:
		name = binding.Target.Name
	}
	if name == "" {
		return nil
	}
	node, ok := control.Get[*corev1.Node](t.objects, kube.Node, "", name)
	if !ok {
		return nil // the binding, or the node's absence, is judged elsewhere
	}
	for _, key := range topologyLabels {
		if value, ok := node.Labels[key]; ok {
			if pod.Labels == nil {
				pod.Labels = map[string]string{}
			}
			pod.Labels[key] = value
		}
	}
	return nil
}
