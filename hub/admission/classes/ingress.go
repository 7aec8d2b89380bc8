package classes

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// oldIngressClass is the annotation by which an Ingress named its class before it had a field for it.
const oldIngressClass = "kubernetes.io/ingress.class"

// DefaultIngress gives a new Ingress that names no class the default one.
func (c *Classes) DefaultIngress(_ context.Context, a *registry.AdmissionRequest) error {
	in, ok := a.Object.(*networkingv1.Ingress)
	if !ok || a.Operation != registry.OpCreate || a.Subresource != "" || in.Spec.IngressClassName != nil {
		return nil
	}
	if _, ok := in.Annotations[oldIngressClass]; ok {
		return nil
	}
	if class := c.byDefault(kube.IngressClass, networkingv1.AnnotationIsDefaultIngressClass); class != nil {
		name := class.GetName()
		in.Spec.IngressClassName = &name
	}
	return nil
}
