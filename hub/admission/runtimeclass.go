package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// runtimeClasses refuses new pods that name a RuntimeClass: the nodes have one runtime, runc.
type runtimeClasses struct{ objects Objects }

func (r *runtimeClasses) refuse(_ context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error {
	if a.Operation != registry.OpCreate || pod.Spec.RuntimeClassName == nil {
		return nil
	}
	name := *pod.Spec.RuntimeClassName
	if _, ok := r.objects.Get(kube.RuntimeClass, "", name); ok {
		return forbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q is stored, but not obeyed yet: every pod runs on runc; take spec.runtimeClassName away", name))
	}
	return forbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", name))
}
