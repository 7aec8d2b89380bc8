package desired

import (
	"encoding/json"
	"fmt"
	discoveryv1 "k8s.io/api/discovery/v1"
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

// TestNodesGetWhatTheyCanUse checks that what no node sends anything to makes no difference to them, and that hints reach them.
func TestNodesGetWhatTheyCanUse(t *testing.T) {
	made := func(spec corev1.ServiceSpec, endpoints ...discoveryv1.Endpoint) (out svcproxy.Service, version uint64) {
		t.Helper()
		w, err := serviceObject(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"}, Spec: spec},
			[]*discoveryv1.EndpointSlice{{Endpoints: endpoints}})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(w.Data, &out); err != nil {
			t.Fatal(err)
		}
		return out, w.Version
	}
	e := func(ip string, ready, serving, terminating bool) discoveryv1.Endpoint {
		node := "n1"
		return discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}}
	}
	hinted := e("10.42.0.1", true, true, false)
	hinted.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "quay"}}, ForNodes: []discoveryv1.ForNode{{Name: "n1"}}}
	all := []discoveryv1.Endpoint{hinted, e("10.42.0.2", false, false, false), e("10.42.0.3", false, true, true), e("10.42.0.4", false, false, true)}

	got, version := made(corev1.ServiceSpec{}, all...)
	if len(got.Endpoints) != 2 || got.Endpoints[0].Node != "" || fmt.Sprint(got.Endpoints[0].Hints) != "{[quay] [n1]}" || !got.Endpoints[1].Terminating {
		t.Errorf("a node gets %+v", got.Endpoints)
	}
	if _, v := made(corev1.ServiceSpec{}, all[0], all[2]); v != version {
		t.Error("endpoints that nobody uses make a difference")
	}
	if got, _ := made(corev1.ServiceSpec{PublishNotReadyAddresses: true}, all...); len(got.Endpoints) != 4 {
		t.Errorf("of a Service that publishes all, a node gets %+v", got.Endpoints)
	}
	local := corev1.ServiceInternalTrafficPolicyLocal
	if got, _ := made(corev1.ServiceSpec{InternalTrafficPolicy: &local}, all...); got.Endpoints[0].Node != "n1" {
		t.Errorf("where the endpoints of a local Service are is left out: %+v", got.Endpoints)
	}
}
