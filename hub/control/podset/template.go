package podset

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// FromTemplate returns a pod of the owner's template, with a controller reference and a name that the API generates from the
// owner's. It shares nothing with the template. A kind that names its pods itself clears GenerateName.
func FromTemplate(owner kube.Object, gvk kube.GVK, template *corev1.PodTemplateSpec) *corev1.Pod {
	t := template.DeepCopy()
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    podPrefix(owner.GetName()),
			Namespace:       owner.GetNamespace(),
			Labels:          t.Labels,
			Annotations:     t.Annotations,
			Finalizers:      t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, gvk)},
		},
		Spec: t.Spec,
	}
}

// podPrefix leaves room for the five characters that generateName adds; a pod's name is a DNS subdomain of at most 253.
func podPrefix(name string) string {
	return name[:min(len(name), 253-6)] + "-"
}
