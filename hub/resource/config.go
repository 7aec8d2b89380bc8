package resource

import (
	"context"
	"crypto/tls"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"petrel.dev/petrel/internal/kube"
)

func configMapKind() *Kind {
	k := declare(kube.ConfigMap, "configmaps", "configmap",
		func() kube.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} })
	k.ShortNames = []string{"cm"}
	k.Rules = strategy[api.ConfigMap]{
		validateCreate: validation.ValidateConfigMap,
		validateUpdate: validation.ValidateConfigMapUpdate,
	}.rules()
	return k
}

func secretKind() *Kind {
	k := declare(kube.Secret, "secrets", "secret",
		func() kube.Object { return &corev1.Secret{} }, func() runtime.Object { return &corev1.SecretList{} })
	// stringData is merged into data by the conversion to the internal type and back.
	k.Rules = strategy[api.Secret]{
		prepareCreate: func(*api.Secret) {},
		prepareUpdate: func(obj, old *api.Secret) {
			if obj.Type == "" {
				obj.Type = old.Type
			}
		},
		validateCreate: validation.ValidateSecret,
		validateUpdate: validation.ValidateSecretUpdate,
		warnCreate:     func(_ context.Context, obj *api.Secret) []string { return secretWarnings(obj) },
		warnUpdate:     func(_ context.Context, obj, _ *api.Secret) []string { return secretWarnings(obj) },
	}.rules()
	k.selectFields(func(obj kube.Object, s fields.Set) { s["type"] = string(obj.(*corev1.Secret).Type) }, "type")
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
