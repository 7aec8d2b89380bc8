package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestFieldsRefused checks that what no node can do is refused when it is asked for, with the reason and the way out.
func TestFieldsRefused(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default")))
	for want, change := range map[string]func(*corev1.PodSpec){
		`pods "p" is forbidden: pod rejected: RuntimeClass "gvisor" not found`: func(s *corev1.PodSpec) { s.RuntimeClassName = new("gvisor") },
		`pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`: func(s *corev1.PodSpec) {
			s.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		},
		`pods "p" is forbidden: pod rejected: spec.resourceClaims: nothing allocates devices here, so the devices of "gpu" would never come; ` +
			`take the claim away, or mount a device with a hostPath volume in a privileged container`: func(s *corev1.PodSpec) {
			s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: new("x")}}
		},
		`pods "p" is forbidden: pod rejected: container "i": hostPort 5000: nodes forward TCP and UDP only; use hostNetwork for SCTP`: func(s *corev1.PodSpec) {
			s.InitContainers[0].Ports = []corev1.ContainerPort{{HostPort: 5000, ContainerPort: 5000, Protocol: corev1.ProtocolSCTP}}
		},
	} {
		wantError(t, admit(t.Context(), c, pod(func(p *corev1.Pod) { change(&p.Spec) }), nil), want)
		old := pod()
		change(&old.Spec)
		if err := admit(t.Context(), c, old, old); err != nil {
			t.Errorf("an update of a pod that was there before: %v", err)
		}
	}
	if err := admit(t.Context(), c, pod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 5000, Protocol: corev1.ProtocolSCTP}}
	}), nil); err != nil {
		t.Errorf("SCTP between pods: %v", err)
	}
	sctp := func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolSCTP }
	wantError(t, admit(t.Context(), c, service("s", sctp), nil),
		`services "s" is forbidden: port 80: nodes forward TCP and UDP only; make the Service headless (clusterIP: None) and let clients connect to its pods`)
	if err := admit(t.Context(), c, service("headless", sctp, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }), nil); err != nil {
		t.Errorf("a headless Service: %v", err)
	}
}

// TestLoadBalancerNodePorts checks that allocateLoadBalancerNodePorts decides whether a LoadBalancer gets node ports.
func TestLoadBalancerNodePorts(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive)))
	for _, allocate := range []bool{true, false} {
		svc := service("a", ofType(corev1.ServiceTypeLoadBalancer), func(s *corev1.Service) { s.Spec.AllocateLoadBalancerNodePorts = &allocate })
		if err := admit(t.Context(), c, svc, nil); err != nil {
			t.Fatal(err)
		}
		if got := svc.Spec.Ports[0].NodePort != 0; got != allocate {
			t.Errorf("allocateLoadBalancerNodePorts %v: node port %d", allocate, svc.Spec.Ports[0].NodePort)
		}
	}
}
