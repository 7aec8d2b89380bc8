package core

import (
	"context"
	"crypto/tls"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func configMapKind() *resource.Kind {
	k := resource.Declare(kube.ConfigMap, "configmaps", "configmap")
	k.ShortNames = []string{"cm"}
	k.Rules = resource.Strategy[api.ConfigMap]{
		ValidateCreate: validation.ValidateConfigMap,
		ValidateUpdate: validation.ValidateConfigMapUpdate,
	}.Rules()
	return k
}

func secretKind() *resource.Kind {
	k := resource.Declare(kube.Secret, "secrets", "secret")
	// stringData is merged into data by the conversion to the internal type and back.
	k.Rules = resource.Strategy[api.Secret]{
		PrepareCreate: func(*api.Secret) {},
		PrepareUpdate: func(obj, old *api.Secret) {
			if obj.Type == "" {
				obj.Type = old.Type
			}
		},
		ValidateCreate: validation.ValidateSecret,
		ValidateUpdate: validation.ValidateSecretUpdate,
		WarnCreate:     func(_ context.Context, obj *api.Secret) []string { return secretWarnings(obj) },
		WarnUpdate:     func(_ context.Context, obj, _ *api.Secret) []string { return secretWarnings(obj) },
	}.Rules()
	k.SelectFields(func(obj kube.Object, s fields.Set) { s["type"] = string(obj.(*corev1.Secret).Type) }, "type")
	return k
}

// secretWarnings returns a warning for a TLS secret whose key does not fit its certificate.
func secretWarnings(s *api.Secret) []string {
	if s.Type != api.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[api.TLSCertKey], s.Data[api.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
