package core

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// mountableSecrets is an annotation that is deprecated since 1.32.
const mountableSecrets = "kubernetes.io/enforce-mountable-secrets"

func serviceAccountKind() *resource.Kind {
	k := resource.Declare(kube.ServiceAccount, "serviceaccounts", "serviceaccount")
	k.ShortNames = []string{"sa"}
	k.Rules = resource.Strategy[api.ServiceAccount]{
		PrepareCreate:  nameSecretsOnly,
		PrepareUpdate:  func(sa, _ *api.ServiceAccount) { nameSecretsOnly(sa) },
		ValidateCreate: validation.ValidateServiceAccount,
		ValidateUpdate: validation.ValidateServiceAccountUpdate,
		WarnCreate:     func(_ context.Context, sa *api.ServiceAccount) []string { return accountWarnings(sa, nil) },
		WarnUpdate:     func(_ context.Context, sa, old *api.ServiceAccount) []string { return accountWarnings(sa, old) },
	}.Rules()
	k.ReturnDeletedObject = true
	k.Subresources["token"] = &resource.Subresource{Name: "token", GVK: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),
		Verbs: []string{"create"}, New: func() runtime.Object { return &authenticationv1.TokenRequest{} }}
	return k
}

func nameSecretsOnly(sa *api.ServiceAccount) {
	for i, secret := range sa.Secrets {
		sa.Secrets[i] = api.ObjectReference{Name: secret.Name}
	}
}

func accountWarnings(sa, old *api.ServiceAccount) []string {
	if old != nil {
		if _, ok := old.Annotations[mountableSecrets]; ok {
			return nil
		}
	}
	if _, ok := sa.Annotations[mountableSecrets]; ok {
		return []string{fmt.Sprintf("metadata.annotations[%s]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets", mountableSecrets)}
	}
	return nil
}
