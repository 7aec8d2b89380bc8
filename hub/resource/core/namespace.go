package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func namespaceKind() *resource.Kind {
	k := resource.Declare(kube.Namespace, "namespaces", "namespace")
	k.ClusterScoped()
	k.ShortNames = []string{"ns"}
	k.Verbs = slices.DeleteFunc(slices.Clone(k.Verbs), func(v string) bool { return v == "deletecollection" })
	k.Rules = resource.Strategy[api.Namespace]{
		PrepareCreate: func(ns *api.Namespace) {
			ns.Status = api.NamespaceStatus{Phase: api.NamespaceActive}
			if !slices.Contains(ns.Spec.Finalizers, api.FinalizerKubernetes) {
				ns.Spec.Finalizers = append(ns.Spec.Finalizers, api.FinalizerKubernetes)
			}
			labelWithName(ns)
		},
		PrepareUpdate: func(ns, old *api.Namespace) {
			ns.Spec.Finalizers = slices.Clone(old.Spec.Finalizers)
			ns.Status = *old.Status.DeepCopy()
			labelWithName(ns)
		},
		ValidateCreate: validation.ValidateNamespace,
		ValidateUpdate: func(ns, old *api.Namespace) field.ErrorList {
			return append(validation.ValidateNamespace(ns), validation.ValidateNamespaceUpdate(ns, old)...)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[api.Namespace]{
		PrepareUpdate:  func(ns, old *api.Namespace) { ns.Spec = *old.Spec.DeepCopy(); labelWithName(ns) },
		ValidateUpdate: validation.ValidateNamespaceStatusUpdate,
	}.Status(k)
	finalize := resource.Strategy[api.Namespace]{
		PrepareUpdate:  func(ns, old *api.Namespace) { ns.Status = *old.Status.DeepCopy(); labelWithName(ns) },
		ValidateUpdate: validation.ValidateNamespaceFinalizeUpdate,
	}.Subresource(k, "finalize")
	finalize.Verbs = []string{"update"}
	k.Subresources["finalize"] = finalize
	k.ReturnDeletedObject = true
	k.Terminating = func(obj kube.Object) { obj.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating }
	k.Finalizers = func(obj kube.Object) []string {
		var names []string
		for _, f := range obj.(*corev1.Namespace).Spec.Finalizers {
			names = append(names, string(f))
		}
		return names
	}
	k.SelectFields(func(obj kube.Object, s fields.Set) { s["status.phase"] = string(obj.(*corev1.Namespace).Status.Phase) }, "status.phase")
	return k
}

// labelWithName keeps the label that namespace selectors of policies rely on. A generated name must be set before.
func labelWithName(ns *api.Namespace) {
	if ns.Name == "" {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}
