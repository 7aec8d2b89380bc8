package admission

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// onPods runs f on pods that are created or updated as a whole, not through a subresource.
func onPods(f func(ctx context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error) step {
	return onPodsAt("", f)
}

// onPodsAt runs f on pods that are created or updated through a subresource, or as a whole when that is empty.
func onPodsAt(subresource string, f func(ctx context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error) step {
	return func(ctx context.Context, a *registry.AdmissionRequest) error {
		if a.Target.Subresource != subresource || a.Operation != registry.OpCreate && a.Operation != registry.OpUpdate {
			return nil
		}
		if pod, ok := a.Object.(*corev1.Pod); ok {
			return f(ctx, a, pod)
		}
		return nil
	}
}

// taintSeconds is how long a pod without a toleration of its own stays on a node that is not ready or dark.
const taintSeconds = 300

// tolerate gives a pod without tolerations for it its time on a node that is not ready or dark: 300 s, or the value of its autonomy
// annotation.
func tolerate(_ context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error {
	stay, err := autonomy(pod)
	if err != nil {
		return kube.NewInvalid(kube.Pod.GroupKind(), pod.Name, field.ErrorList{err})
	}
	for _, taint := range []string{kube.TaintNotReady, kube.TaintUnreachable} {
		if slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		}) {
			continue
		}
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key:               taint,
			Operator:          corev1.TolerationOpExists,
			Effect:            corev1.TaintEffectNoExecute,
			TolerationSeconds: stay,
		})
	}
	return nil
}

// autonomy returns the tolerationSeconds of the pod's annotation, nil for no limit.
func autonomy(pod *corev1.Pod) (*int64, *field.Error) {
	seconds := int64(taintSeconds)
	value, ok := pod.Annotations[kube.AutonomyAnnotation]
	switch {
	case !ok:
		return &seconds, nil
	case value == "forever":
		return nil, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return nil, field.Invalid(field.NewPath("metadata", "annotations").Key(kube.AutonomyAnnotation), value,
			`must be "forever" or a duration such as "12h" or "30m"`)
	}
	seconds = int64(d / time.Second)
	return &seconds, nil
}
