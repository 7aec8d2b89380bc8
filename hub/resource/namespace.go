package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/internal/kube"
)

func namespaceKind() *Kind {
	k := declare(kube.Namespace, "namespaces", "namespace",
		func() kube.Object { return &corev1.Namespace{} }, func() runtime.Object { return &corev1.NamespaceList{} })
	k.clusterScoped()
	k.ShortNames = []string{"ns"}
	k.Verbs = slices.DeleteFunc(slices.Clone(allVerbs), func(v string) bool { return v == "deletecollection" })
	k.Rules = strategy[api.Namespace]{
		prepareCreate: func(ns *api.Namespace) {
			ns.Status = api.NamespaceStatus{Phase: api.NamespaceActive}
			if !slices.Contains(ns.Spec.Finalizers, api.FinalizerKubernetes) {
				ns.Spec.Finalizers = append(ns.Spec.Finalizers, api.FinalizerKubernetes)
			}
			labelWithName(ns)
		},
		prepareUpdate: func(ns, old *api.Namespace) {
			ns.Spec.Finalizers = slices.Clone(old.Spec.Finalizers)
			ns.Status = *old.Status.DeepCopy()
			labelWithName(ns)
		},
		validateCreate: validation.ValidateNamespace,
		validateUpdate: func(ns, old *api.Namespace) field.ErrorList {
			return append(validation.ValidateNamespace(ns), validation.ValidateNamespaceUpdate(ns, old)...)
		},
	}.rules()
	k.Subresources["status"] = strategy[api.Namespace]{
		prepareUpdate:  func(ns, old *api.Namespace) { ns.Spec = *old.Spec.DeepCopy(); labelWithName(ns) },
		validateUpdate: validation.ValidateNamespaceStatusUpdate,
	}.status(k)
	finalize := strategy[api.Namespace]{
		prepareUpdate:  func(ns, old *api.Namespace) { ns.Status = *old.Status.DeepCopy(); labelWithName(ns) },
		validateUpdate: validation.ValidateNamespaceFinalizeUpdate,
	}.subresource(k, "finalize")
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
	k.selectFields(func(obj kube.Object, s fields.Set) { s["status.phase"] = string(obj.(*corev1.Namespace).Status.Phase) }, "status.phase")
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
