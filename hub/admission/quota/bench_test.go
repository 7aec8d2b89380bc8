package quota_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BenchmarkCreate is the creation of a pod in a namespace without a quota, and in one with a quota of six resources that has counted
// all pods before it.
func BenchmarkCreate(b *testing.B) {
	for name, hard := range map[string][]string{
		"none": nil, "quota": {"pods", "1000000", "count/pods", "1000000", "requests.cpu", "1000000", "requests.memory", "1000Ti", "limits.cpu", "1000000", "count/configmaps", "5"},
	} {
		b.Run(name, func(b *testing.B) {
			c := start(b, hard...)
			if hard == nil {
				if err := c.Delete(b.Context(), corev1.SchemeGroupVersion.WithKind("ResourceQuota"), "ns", "q", metav1.DeleteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for b.Loop() {
				n++
				p := pod(fmt.Sprint("p", n), "100m")
				p.Spec.Containers[0].Resources.Requests["memory"] = *p.Spec.Containers[0].Resources.Requests.Cpu()
				p.Spec.Containers[0].Resources.Limits = p.Spec.Containers[0].Resources.Requests
				if _, err := c.Create(b.Context(), p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
