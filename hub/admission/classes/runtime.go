package classes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// CompletePod gives a new pod the overhead, node selector and tolerations of its RuntimeClass. A class that does not exist, or
// contradicts the pod, refuses it.
func (c *Classes) CompletePod(_ context.Context, a *registry.AdmissionRequest) error {
	pod, class, err := c.runtimeOf(a)
	if err != nil || class == nil {
		return err
	}
	if fixed := overhead(class); fixed != nil {
		if len(pod.Spec.Overhead) > 0 && !apiequality.Semantic.DeepEqual(fixed, pod.Spec.Overhead) {
			return refuse.Forbidden(a, errOtherOverhead)
		}
		pod.Spec.Overhead = fixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(class.Scheduling.NodeSelector)) {
		value := class.Scheduling.NodeSelector[key]
		if own, ok := pod.Spec.NodeSelector[key]; ok && own != value {
			return refuse.Forbidden(a, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, value, key, own))
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[key] = value
	}
	pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, class.Scheduling.Tolerations)
	return nil
}

// CheckPod refuses a new pod whose overhead is not that of its RuntimeClass: what a later step, or a pod without a class, has set.
func (c *Classes) CheckPod(_ context.Context, a *registry.AdmissionRequest) error {
	pod, class, err := c.runtimeOf(a)
	if err != nil || pod == nil {
		return err
	}
	fixed := overhead(class)
	switch {
	case fixed == nil && pod.Spec.Overhead != nil:
		return refuse.Forbidden(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	case fixed != nil && !apiequality.Semantic.DeepEqual(fixed, pod.Spec.Overhead):
		return refuse.Forbidden(a, errOtherOverhead)
	}
	return nil
}

var errOtherOverhead = errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")

// runtimeOf returns the new pod of a, nil when a is something else, and the class that it names, nil for none.
func (c *Classes) runtimeOf(a *registry.AdmissionRequest) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != registry.OpCreate || a.Subresource != "" {
		return nil, nil, nil
	}
	if pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	class, ok := control.Get[*nodev1.RuntimeClass](c.objects, kube.RuntimeClass, "", *pod.Spec.RuntimeClassName)
	if !ok {
		return nil, nil, refuse.Forbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
	}
	return pod, class, nil
}

// overhead returns what the class adds to each pod; nil: nothing is declared, or there is no class.
func overhead(class *nodev1.RuntimeClass) corev1.ResourceList {
	if class == nil || class.Overhead == nil {
		return nil
	}
	return class.Overhead.PodFixed
}

// mergeTolerations returns both lists without those that another one covers.
func mergeTolerations(own, more []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(own, more)
	var merged []corev1.Toleration
	for i, t := range all {
		needless := slices.ContainsFunc(merged, func(kept corev1.Toleration) bool { return covers(kept, t) }) ||
			slices.ContainsFunc(all[i+1:], func(later corev1.Toleration) bool {
				return covers(later, t) && !apiequality.Semantic.DeepEqual(later, t)
			})
		if !needless {
			merged = append(merged, t)
		}
	}
	return merged
}

// covers reports whether whatever t tolerates, wide tolerates too, and as long.
func covers(wide, t corev1.Toleration) bool {
	switch {
	case apiequality.Semantic.DeepEqual(wide, t):
		return true
	case t.Key != wide.Key && (wide.Key != "" || wide.Operator != corev1.TolerationOpExists),
		t.Effect != wide.Effect && wide.Effect != "":
		return false
	}
	if wide.Effect == corev1.TaintEffectNoExecute && wide.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *wide.TolerationSeconds) {
		return false
	}
	switch wide.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return (t.Operator == corev1.TolerationOpEqual || t.Operator == "") && t.Value == wide.Value
	}
	return false
}
