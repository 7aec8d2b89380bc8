package resource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TenantOf returns whose share of the store an object's key counts against: its namespace, whatever the kind. Empty for what
// is in none, and for Kubernetes' own namespaces, which clients do not use.
func TenantOf(key string) string {
	// /GROUP/PLURAL/NAMESPACE/NAME, or /GROUP/PLURAL/NAME: no part has a slash in it.
	for range 3 {
		_, rest, ok := strings.Cut(key, "/")
		if !ok {
			return ""
		}
		key = rest
	}
	namespace, _, ok := strings.Cut(key, "/")
	if !ok || namespace == metav1.NamespaceSystem || namespace == metav1.NamespacePublic || namespace == corev1.NamespaceNodeLease {
		return ""
	}
	return namespace
}
