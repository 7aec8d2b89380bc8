package core

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
)

// podResize declares the subresource by which the CPU and memory of a pod that runs are changed. It is the only way to them: writes
// of the pod itself cannot change them.
func podResize(k *resource.Kind) *resource.Subresource {
	s := resource.Strategy[api.Pod]{
		PrepareUpdate: preparePodResize,
		ValidateUpdate: func(pod, old *api.Pod) field.ErrorList {
			return validation.ValidatePodResize(pod, old, podOptions(pod, old))
		},
	}.Subresource(k, "resize")
	for _, list := range []string{"containers", "initContainers"} {
		for _, name := range []string{"resources", "resizePolicy"} {
			s.Owns = append(s.Owns, []string{"spec", list, "*", name})
		}
	}
	return s
}

// preparePodResize keeps all of a pod but its resources and resize policies. Containers that were added, removed, renamed or put in
// another order are left to validation, which refuses them.
func preparePodResize(pod, old *api.Pod) {
	kept := old.DeepCopy()
	if sameContainers(pod.Spec.InitContainers, kept.Spec.InitContainers) && sameContainers(pod.Spec.Containers, kept.Spec.Containers) {
		takeResources(kept.Spec.InitContainers, pod.Spec.InitContainers)
		takeResources(kept.Spec.Containers, pod.Spec.Containers)
		kept.Spec.Resources = pod.Spec.Resources
		pod.Spec, pod.Status = kept.Spec, kept.Status
		metav1.ResetObjectMetaForStatus(&pod.ObjectMeta, &kept.ObjectMeta)
	}
	podutil.DropDisabledPodFields(pod, old)
	if !apiequality.Semantic.DeepEqual(pod.Spec, old.Spec) {
		pod.Generation++
	}
}

// sameContainers reports whether two lists name the same containers in the same order.
func sameContainers(a, b []api.Container) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name {
			return false
		}
	}
	return true
}

// takeResources gives the containers of to the resources and resize policies of those of from.
func takeResources(to, from []api.Container) {
	for i := range to {
		to[i].Resources, to[i].ResizePolicy = from[i].Resources, from[i].ResizePolicy
	}
}
