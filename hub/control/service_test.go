package control_test

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/endpointmirror"
	"petrel.dev/petrel/internal/kube"
)

// Cases 10, 11 and 48 with the API's own validation: kube-dns is there, a load balancer has addresses, Endpoints made by
// hand are mirrored as long as they are there.
func TestServicesOnTheRegistry(t *testing.T) {
	c := hub(t)
	soon(t, func() string {
		svc, ok := control.Get[*corev1.Service](c, kube.Service, "kube-system", "kube-dns")
		if !ok || svc.Spec.ClusterIP != "10.43.0.10" {
			return fmt.Sprintf("kube-dns: %v %+v", ok, svc)
		}
		return ""
	})
	n := create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}).DeepCopyObject().(*corev1.Node)
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.ResourceVersion = ""
	if _, err := c.Update(t.Context(), n, "status"); err != nil {
		t.Fatal(err)
	}
	create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "lb"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "lb"}, Ports: []corev1.ServicePort{{Port: 9191}}}})
	soon(t, func() string {
		svc, ok := control.Get[*corev1.Service](c, kube.Service, "default", "lb")
		if !ok || len(svc.Status.LoadBalancer.Ingress) != 1 || svc.Status.LoadBalancer.Ingress[0].IP != "192.0.2.1" {
			return fmt.Sprintf("load balancer: %v %+v", ok, svc)
		}
		return ""
	})

	create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "sql", Port: 5432}}}})
	eps := create(t, c, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Subsets: []corev1.EndpointSubset{
		{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.50"}}, Ports: []corev1.EndpointPort{{Name: "sql", Port: 5432}}}}})
	mirrors := func(want string) func() string {
		return func() string {
			got := ""
			for _, s := range control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default") {
				if s.Labels[discoveryv1.LabelManagedBy] == endpointmirror.ManagedBy {
					for _, e := range s.Endpoints {
						got += e.Addresses[0] + " "
					}
				}
			}
			if got != want {
				return fmt.Sprintf("mirrored %q, want %q", got, want)
			}
			return ""
		}
	}
	soon(t, mirrors("192.0.2.50 "))
	now := eps.DeepCopyObject().(*corev1.Endpoints)
	now.Subsets[0].Addresses[0].IP, now.ResourceVersion = "192.0.2.51", ""
	if _, err := c.Update(t.Context(), now, ""); err != nil {
		t.Fatal(err)
	}
	soon(t, mirrors("192.0.2.51 "))
	if err := c.Delete(t.Context(), kube.Endpoints, "default", "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soon(t, mirrors(""))
}
