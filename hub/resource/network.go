package resource

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/apis/networking/validation"

	"petrel.dev/petrel/internal/kube"
)

func ingressKind() *Kind {
	k := declare(networkingv1.SchemeGroupVersion.WithKind("Ingress"), "ingresses", "ingress",
		func() kube.Object { return &networkingv1.Ingress{} }, func() runtime.Object { return &networkingv1.IngressList{} })
	k.ShortNames = []string{"ing"}
	k.Inert = nothingActs
	k.Rules = strategy[networking.Ingress]{
		prepareCreate: func(in *networking.Ingress) {
			in.Status = networking.IngressStatus{}
			in.Generation = 1
		},
		prepareUpdate: func(in, old *networking.Ingress) {
			in.Status = *old.Status.DeepCopy()
			countChange(&in.ObjectMeta, &old.ObjectMeta, in.Spec, old.Spec)
		},
		validateCreate: validation.ValidateIngressCreate,
		validateUpdate: validation.ValidateIngressUpdate,
		warnCreate: func(_ context.Context, in *networking.Ingress) []string {
			const old = "kubernetes.io/ingress.class"
			if _, ok := in.Annotations[old]; ok && in.Spec.IngressClassName == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", old)}
			}
			return nil
		},
	}.rules()
	k.Subresources["status"] = strategy[networking.Ingress]{
		prepareUpdate:  func(in, old *networking.Ingress) { in.Spec = *old.Spec.DeepCopy() },
		validateUpdate: validation.ValidateIngressStatusUpdate,
		warnUpdate: func(_ context.Context, in, _ *networking.Ingress) []string {
			var out []string
			for i, at := range in.Status.LoadBalancer.Ingress {
				if at.IP != "" {
					out = append(out, utilvalidation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(i), at.IP)...)
				}
			}
			return out
		},
	}.status(k)
	return k
}

func ingressClassKind() *Kind {
	k := declare(networkingv1.SchemeGroupVersion.WithKind("IngressClass"), "ingressclasses", "ingressclass",
		func() kube.Object { return &networkingv1.IngressClass{} }, func() runtime.Object { return &networkingv1.IngressClassList{} })
	k.clusterScoped()
	k.Inert = nothingActs
	k.Rules = strategy[networking.IngressClass]{
		prepareCreate: func(c *networking.IngressClass) { c.Generation = 1 },
		prepareUpdate: func(c, old *networking.IngressClass) {
			countChange(&c.ObjectMeta, &old.ObjectMeta, c.Spec, old.Spec)
		},
		validateCreate: validation.ValidateIngressClass,
		validateUpdate: validation.ValidateIngressClassUpdate,
	}.rules()
	return k
}

func networkPolicyKind() *Kind {
	k := declare(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), "networkpolicies", "networkpolicy",
		func() kube.Object { return &networkingv1.NetworkPolicy{} }, func() runtime.Object { return &networkingv1.NetworkPolicyList{} })
	k.ShortNames = []string{"netpol"}
	k.Inert = "no traffic is filtered by it yet"
	k.Rules = strategy[networking.NetworkPolicy]{
		prepareCreate: func(p *networking.NetworkPolicy) { p.Generation = 1 },
		prepareUpdate: func(p, old *networking.NetworkPolicy) {
			countChange(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
		},
		validateCreate: func(p *networking.NetworkPolicy) field.ErrorList {
			return validation.ValidateNetworkPolicy(p, validation.ValidationOptionsForNetworking(p, nil))
		},
		validateUpdate: func(p, old *networking.NetworkPolicy) field.ErrorList {
			return validation.ValidateNetworkPolicyUpdate(p, old, validation.ValidationOptionsForNetworking(p, old))
		},
		warnCreate: func(_ context.Context, p *networking.NetworkPolicy) []string { return policyWarnings(p) },
		warnUpdate: func(_ context.Context, p, _ *networking.NetworkPolicy) []string { return policyWarnings(p) },
	}.rules()
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
