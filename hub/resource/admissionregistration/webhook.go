package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	"k8s.io/kubernetes/pkg/apis/admissionregistration/validation"

	"petrel.dev/petrel/hub/resource"
)

func mutatingWebhookKind() *resource.Kind {
	type config = admissionregistration.MutatingWebhookConfiguration
	k := resource.Declare(admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"),
		"mutatingwebhookconfigurations", "mutatingwebhookconfiguration")
	k.ClusterScoped()
	k.Categories = extensions
	k.Rules = resource.Strategy[config]{
		PrepareCreate: func(c *config) { c.Generation = 1 },
		PrepareUpdate: func(c, old *config) {
			resource.CountChange(&c.ObjectMeta, &old.ObjectMeta, c.Webhooks, old.Webhooks)
		},
		ValidateCreate:    validation.ValidateMutatingWebhookConfiguration,
		ValidateUpdate:    validation.ValidateMutatingWebhookConfigurationUpdate,
		WarnCreate:        func(_ context.Context, c *config) []string { return validation.WarningsForStaticSuffix(c.Name) },
		WarnUpdate:        func(_ context.Context, c, _ *config) []string { return validation.WarningsForStaticSuffix(c.Name) },
		ConditionalUpdate: true,
	}.Rules()
	return k
}

func validatingWebhookKind() *resource.Kind {
	type config = admissionregistration.ValidatingWebhookConfiguration
	k := resource.Declare(admissionv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"),
		"validatingwebhookconfigurations", "validatingwebhookconfiguration")
	k.ClusterScoped()
	k.Categories = extensions
	k.Rules = resource.Strategy[config]{
		PrepareCreate: func(c *config) { c.Generation = 1 },
		PrepareUpdate: func(c, old *config) {
			resource.CountChange(&c.ObjectMeta, &old.ObjectMeta, c.Webhooks, old.Webhooks)
		},
		ValidateCreate:    validation.ValidateValidatingWebhookConfiguration,
		ValidateUpdate:    validation.ValidateValidatingWebhookConfigurationUpdate,
		WarnCreate:        func(_ context.Context, c *config) []string { return validation.WarningsForStaticSuffix(c.Name) },
		WarnUpdate:        func(_ context.Context, c, _ *config) []string { return validation.WarningsForStaticSuffix(c.Name) },
		ConditionalUpdate: true,
	}.Rules()
	return k
}
