package networking

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/apis/networking/validation"

	"petrel.dev/petrel/hub/resource"
)

func ingressKind() *resource.Kind {
	k := resource.Declare(networkingv1.SchemeGroupVersion.WithKind("Ingress"), "ingresses", "ingress")
	k.ShortNames = []string{"ing"}
	k.Inert = resource.NothingActs
	k.Rules = resource.Strategy[networking.Ingress]{
		PrepareCreate: func(in *networking.Ingress) {
			in.Status = networking.IngressStatus{}
			in.Generation = 1
		},
		PrepareUpdate: func(in, old *networking.Ingress) {
			in.Status = *old.Status.DeepCopy()
			resource.CountChange(&in.ObjectMeta, &old.ObjectMeta, in.Spec, old.Spec)
		},
		ValidateCreate: validation.ValidateIngressCreate,
		ValidateUpdate: validation.ValidateIngressUpdate,
		WarnCreate: func(_ context.Context, in *networking.Ingress) []string {
			const old = "kubernetes.io/ingress.class"
			if _, ok := in.Annotations[old]; ok && in.Spec.IngressClassName == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", old)}
			}
			return nil
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[networking.Ingress]{
		PrepareUpdate:  func(in, old *networking.Ingress) { in.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateIngressStatusUpdate,
		WarnUpdate: func(_ context.Context, in, _ *networking.Ingress) []string {
			var out []string
			for i, at := range in.Status.LoadBalancer.Ingress {
				if at.IP != "" {
					out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(i), at.IP)...)
				}
			}
			return out
		},
	}.Status(k)
	return k
}

func ingressClassKind() *resource.Kind {
	k := resource.Declare(networkingv1.SchemeGroupVersion.WithKind("IngressClass"), "ingressclasses", "ingressclass")
	k.ClusterScoped()
	k.Rules = resource.Strategy[networking.IngressClass]{
		PrepareCreate: func(c *networking.IngressClass) { c.Generation = 1 },
		PrepareUpdate: func(c, old *networking.IngressClass) {
			resource.CountChange(&c.ObjectMeta, &old.ObjectMeta, c.Spec, old.Spec)
		},
		ValidateCreate: validation.ValidateIngressClass,
		ValidateUpdate: validation.ValidateIngressClassUpdate,
	}.Rules()
	return k
}

func networkPolicyKind() *resource.Kind {
	k := resource.Declare(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), "networkpolicies", "networkpolicy")
	k.ShortNames = []string{"netpol"}
	k.Inert = "no traffic is filtered by it yet"
	k.Rules = resource.Strategy[networking.NetworkPolicy]{
		PrepareCreate: func(p *networking.NetworkPolicy) { p.Generation = 1 },
		PrepareUpdate: func(p, old *networking.NetworkPolicy) {
			resource.CountChange(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
		},
		ValidateCreate: func(p *networking.NetworkPolicy) field.ErrorList {
			return validation.ValidateNetworkPolicy(p, validation.ValidationOptionsForNetworking(p, nil))
		},
		ValidateUpdate: func(p, old *networking.NetworkPolicy) field.ErrorList {
			return validation.ValidateNetworkPolicyUpdate(p, old, validation.ValidationOptionsForNetworking(p, old))
		},
		WarnCreate: func(_ context.Context, p *networking.NetworkPolicy) []string { return policyWarnings(p) },
		WarnUpdate: func(_ context.Context, p, _ *networking.NetworkPolicy) []string { return policyWarnings(p) },
	}.Rules()
	return k
}

// policyWarnings warns of networks that are written in a form that parsers read differently.
func policyWarnings(p *networking.NetworkPolicy) []string {
	var out []string
	peers := func(path *field.Path, peers []networking.NetworkPolicyPeer) {
		for i, peer := range peers {
			if peer.IPBlock == nil {
				continue
			}
			at := path.Index(i).Child("ipBlock")
			out = append(out, utilvalidation.GetWarningsForCIDR(at.Child("cidr"), peer.IPBlock.CIDR)...)
			for j, except := range peer.IPBlock.Except {
				out = append(out, utilvalidation.GetWarningsForCIDR(at.Child("except").Index(j), except)...)
			}
		}
	}
	for i := range p.Spec.Ingress {
		peers(field.NewPath("spec", "ingress").Index(i).Child("from"), p.Spec.Ingress[i].From)
	}
	for i := range p.Spec.Egress {
		peers(field.NewPath("spec", "egress").Index(i).Child("to"), p.Spec.Egress[i].To)
	}
	return out
}
