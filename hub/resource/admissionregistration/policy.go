package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	"k8s.io/kubernetes/pkg/apis/admissionregistration/validation"

	"petrel.dev/petrel/hub/resource"
)

func validatingPolicyKind() *resource.Kind {
	type policy = admissionregistration.ValidatingAdmissionPolicy
	k := resource.Declare(admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicy"),
		"validatingadmissionpolicies", "validatingadmissionpolicy")
	k.ClusterScoped()
	k.Categories = extensions
	s := resource.Strategy[policy]{
		PrepareCreate: func(p *policy) {
			p.Status = admissionregistration.ValidatingAdmissionPolicyStatus{}
			p.Generation = 1
		},
		PrepareUpdate: func(p, old *policy) {
			p.Status = *old.Status.DeepCopy()
			resource.CountChange(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
		},
		ValidateCreate:    validation.ValidateValidatingAdmissionPolicy,
		ValidateUpdate:    validation.ValidateValidatingAdmissionPolicyUpdate,
		WarnCreate:        func(_ context.Context, p *policy) []string { return validation.WarningsForStaticSuffix(p.Name) },
		WarnUpdate:        func(_ context.Context, p, _ *policy) []string { return validation.WarningsForStaticSuffix(p.Name) },
		ConditionalUpdate: true,
	}
	k.Rules = s.Rules()
	s.PrepareUpdate = func(p, old *policy) {
		copied := old.DeepCopy()
		p.Spec = copied.Spec
		metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &copied.ObjectMeta)
	}
	s.ValidateUpdate = validation.ValidateValidatingAdmissionPolicyStatusUpdate
	k.Subresources["status"] = s.Status(k)
	return k
}

func validatingPolicyBindingKind() *resource.Kind {
	type binding = admissionregistration.ValidatingAdmissionPolicyBinding
	k := resource.Declare(admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicyBinding"),
		"validatingadmissionpolicybindings", "validatingadmissionpolicybinding")
	k.ClusterScoped()
	k.Categories = extensions
	k.Rules = resource.Strategy[binding]{
		PrepareCreate: func(b *binding) { b.Generation = 1 },
		PrepareUpdate: func(b, old *binding) {
			resource.CountChange(&b.ObjectMeta, &old.ObjectMeta, b.Spec, old.Spec)
		},
		ValidateCreate:    validation.ValidateValidatingAdmissionPolicyBinding,
		ValidateUpdate:    validation.ValidateValidatingAdmissionPolicyBindingUpdate,
		WarnCreate:        func(_ context.Context, b *binding) []string { return validation.WarningsForStaticSuffix(b.Name) },
		WarnUpdate:        func(_ context.Context, b, _ *binding) []string { return validation.WarningsForStaticSuffix(b.Name) },
		ConditionalUpdate: true,
	}.Rules()
	return k
}

// mutatingPolicyKind has no status, upstream's has none either.
func mutatingPolicyKind() *resource.Kind {
	type policy = admissionregistration.MutatingAdmissionPolicy
	k := resource.Declare(admissionv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicy"),
		"mutatingadmissionpolicies", "mutatingadmissionpolicy")
	k.ClusterScoped()
	k.Categories = extensions
	k.Rules = resource.Strategy[policy]{
		PrepareCreate: func(p *policy) { p.Generation = 1 },
		PrepareUpdate: func(p, old *policy) {
			resource.CountChange(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
		},
		ValidateCreate:    validation.ValidateMutatingAdmissionPolicy,
		ValidateUpdate:    validation.ValidateMutatingAdmissionPolicyUpdate,
		WarnCreate:        func(_ context.Context, p *policy) []string { return validation.WarningsForStaticSuffix(p.Name) },
		WarnUpdate:        func(_ context.Context, p, _ *policy) []string { return validation.WarningsForStaticSuffix(p.Name) },
		ConditionalUpdate: true,
	}.Rules()
	return k
}

func mutatingPolicyBindingKind() *resource.Kind {
	type binding = admissionregistration.MutatingAdmissionPolicyBinding
	k := resource.Declare(admissionv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicyBinding"),
		"mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding")
	k.ClusterScoped()
	k.Categories = extensions
	k.Rules = resource.Strategy[binding]{
		PrepareCreate: func(b *binding) { b.Generation = 1 },
		PrepareUpdate: func(b, old *binding) {
			resource.CountChange(&b.ObjectMeta, &old.ObjectMeta, b.Spec, old.Spec)
		},
		ValidateCreate:    validation.ValidateMutatingAdmissionPolicyBinding,
		ValidateUpdate:    validation.ValidateMutatingAdmissionPolicyBindingUpdate,
		WarnCreate:        func(_ context.Context, b *binding) []string { return validation.WarningsForStaticSuffix(b.Name) },
		WarnUpdate:        func(_ context.Context, b, _ *binding) []string { return validation.WarningsForStaticSuffix(b.Name) },
		ConditionalUpdate: true,
	}.Rules()
	return k
}
