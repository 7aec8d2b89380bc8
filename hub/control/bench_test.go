package control_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// BenchmarkThousandPods measures the time from creating a Deployment of a thousand replicas until all are available and in the
// Service's endpoints, on the real registry and a store on disk, with kubelets that answer at once; then the end of the
// namespace.
func BenchmarkThousandPods(b *testing.B) {
	const replicas = 1000
	c := hub(b)
	create(b, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	for i := 0; b.Loop(); i++ {
		ns := fmt.Sprintf("shop-%d", i)
		create(b, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		create(b, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}})
		create(b, c, webDeployment(ns, replicas, "v1"))
		soon(b, func() string {
			d, ok := control.Get[*appsv1.Deployment](c, kube.Deployment, ns, "web")
			if !ok || d.Status.AvailableReplicas != replicas {
				return "not all pods are available"
			}
			return ""
		})
		if err := c.Delete(b.Context(), kube.Namespace, "", ns, metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		soon(b, func() string {
			if _, ok := c.Get(kube.Namespace, "", ns); ok {
				return "the namespace is still there"
			}
			return ""
		})
	}
}
