package core

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
)

// ephemeralContainers declares the subresource by which containers are added to a pod that is there. It is the only way to them:
// writes of the pod itself cannot change them.
func ephemeralContainers(k *resource.Kind) *resource.Subresource {
	s := resource.Strategy[api.Pod]{
		PrepareUpdate: prepareEphemeralContainers,
		ValidateUpdate: func(pod, old *api.Pod) field.ErrorList {
			return validation.ValidatePodEphemeralContainersUpdate(pod, old, podOptions(pod, old))
		},
	}.Subresource(k, "ephemeralcontainers")
	s.Resets = [][]string{{"metadata"}, {"status"}}
	for f := range reflect.TypeFor[corev1.PodSpec]().Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "ephemeralContainers" {
			s.Resets = append(s.Resets, []string{"spec", name})
		}
	}
	return s
}

// prepareEphemeralContainers keeps all of a pod but its ephemeral containers.
func prepareEphemeralContainers(pod, old *api.Pod) {
	containers, kept := pod.Spec.EphemeralContainers, old.DeepCopy()
	pod.Spec, pod.Status = kept.Spec, kept.Status
	pod.Spec.EphemeralContainers = containers
	metav1.ResetObjectMetaForStatus(&pod.ObjectMeta, &kept.ObjectMeta)
	podutil.DropDisabledPodFields(pod, old)
	if !apiequality.Semantic.DeepEqual(pod.Spec, old.Spec) {
		pod.Generation++
	}
}
