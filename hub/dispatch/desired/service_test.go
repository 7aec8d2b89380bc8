package desired

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/svcproxy"
)

// TestServiceFields checks that what a Service says of its traffic reaches the nodes.
func TestServiceFields(t *testing.T) {
	made := func(spec corev1.ServiceSpec) (out svcproxy.Service) {
		t.Helper()
		spec.ClusterIP = "10.43.0.5"
		spec.Ports = []corev1.ServicePort{{Port: 80}}
		o, err := serviceObject(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u"}, Spec: spec}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(o.Data, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct {
		spec corev1.ServiceSpec
		want func(*svcproxy.Service) bool
	}{
		"plain": {corev1.ServiceSpec{}, func(s *svcproxy.Service) bool {
			return s.AffinitySeconds == 0 && !s.LocalOnlyExternal && !s.LocalOnlyInternal && !s.LoadBalancer && !s.PublishNotReady
		}},
		"affinity": {corev1.ServiceSpec{SessionAffinity: corev1.ServiceAffinityClientIP,
			SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(3))}}},
			func(s *svcproxy.Service) bool { return s.AffinitySeconds == 3 }},
		"external": {corev1.ServiceSpec{ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal},
			func(s *svcproxy.Service) bool { return s.LocalOnlyExternal && !s.LocalOnlyInternal }},
		"internal": {corev1.ServiceSpec{InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyLocal)},
			func(s *svcproxy.Service) bool { return s.LocalOnlyInternal && !s.LocalOnlyExternal }},
		"balancer": {corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}, func(s *svcproxy.Service) bool { return s.LoadBalancer && s.HealthPort == 0 }},
		"health check": {corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: new("example.test/other"),
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32111}, func(s *svcproxy.Service) bool { return s.HealthPort == 32111 }},
		"health check without Local": {corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, HealthCheckNodePort: 32111},
			func(s *svcproxy.Service) bool { return s.HealthPort == 0 }},
		"unready": {corev1.ServiceSpec{PublishNotReadyAddresses: true}, func(s *svcproxy.Service) bool { return s.PublishNotReady }},
		"name": {corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.test"},
			func(s *svcproxy.Service) bool { return s.ExternalName == "example.test" }},
		"name of another type": {corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.43.0.9", ExternalName: "example.test"},
			func(s *svcproxy.Service) bool { return s.ExternalName == "" && len(s.ClusterIPs) == 1 }},
		"addresses": {corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.7"}}, func(s *svcproxy.Service) bool { return len(s.ExternalIPs) == 1 }},
	} {
		if s := made(c.spec); !c.want(&s) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
