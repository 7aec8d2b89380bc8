package desired

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// serviceObject joins a Service with its EndpointSlices. The result depends on neither's order or metadata, so that a
// change without effect on nodes is not sent.
func serviceObject(s *corev1.Service, endpoints []*discoveryv1.EndpointSlice) (*wire.Object, error) {
	j := svcproxy.Service{
		Namespace: s.Namespace, Name: s.Name,
		// A class names another load balancer, which alone may serve such a Service.
		LoadBalancer:    s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil,
		PublishNotReady: s.Spec.PublishNotReadyAddresses,
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName { // one that was may keep the name, which means nothing then
		j.ExternalName = s.Spec.ExternalName
	}
	for _, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			j.ClusterIPs = append(j.ClusterIPs, a)
		}
	}
	if a, err := netip.ParseAddr(s.Spec.ClusterIP); len(j.ClusterIPs) == 0 && err == nil {
		j.ClusterIPs = []netip.Addr{a}
	}
	if !s.CreationTimestamp.IsZero() {
		j.Created = s.CreationTimestamp.Unix()
	}
	if j.LoadBalancer {
		for _, r := range sourceRanges(s) {
			if p, err := netip.ParsePrefix(strings.TrimSpace(r)); err == nil {
				j.SourceRanges = append(j.SourceRanges, p.Masked())
			}
		}
		j.Filtered = len(sourceRanges(s)) > 0
	}
	for _, ip := range s.Spec.ExternalIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			j.ExternalIPs = append(j.ExternalIPs, a)
		}
	}
	for _, p := range s.Spec.Ports {
		if p.Protocol == corev1.ProtocolTCP || p.Protocol == corev1.ProtocolUDP || p.Protocol == "" {
			proto := svcproxy.TCP
			if p.Protocol == corev1.ProtocolUDP {
				proto = svcproxy.UDP
			}
			j.Ports = append(j.Ports, svcproxy.Port{Name: p.Name, Protocol: proto, Port: uint16(p.Port), NodePort: uint16(p.NodePort)})
		}
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		j.AffinitySeconds = corev1.DefaultClientIPServiceAffinitySeconds
		if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			j.AffinitySeconds = *c.ClientIP.TimeoutSeconds
		}
	}
	j.LocalOnlyInternal = s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	j.LocalOnlyExternal = s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && j.LocalOnlyExternal { // of any class: another's load balancer asks it too
		j.HealthPort = uint16(s.Spec.HealthCheckNodePort)
	}
	for _, e := range endpoints {
		for _, x := range sliceEndpoints(e) {
			if needed(&j, &x) {
				j.Endpoints = append(j.Endpoints, x)
			}
		}
	}
	slices.SortFunc(j.Endpoints, func(a, b svcproxy.Endpoint) int {
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return strings.Compare(a.Node+" "+a.Hostname, b.Node+" "+b.Hostname)
	})
	return object(wire.KindService, s, &j)
}

// needed reports whether a node may ever send anything to an endpoint, or answer with it in DNS. What is left out of a Service makes no
// traffic when it changes: a pod that has its address and is not ready yet is no news. It leaves out of the endpoint where it is, unless
// the Service prefers or takes only what is on the node.
func needed(s *svcproxy.Service, e *svcproxy.Endpoint) bool {
	if !s.LocalOnlyInternal && !s.LocalOnlyExternal && s.HealthPort == 0 {
		e.Node = ""
	}
	return e.Ready || s.PublishNotReady || e.Serving && e.Terminating
}

// sourceRanges returns the networks that may use a load balancer, none for all: by the field, or by the annotation that it came from.
func sourceRanges(s *corev1.Service) []string {
	if len(s.Spec.LoadBalancerSourceRanges) > 0 {
		return s.Spec.LoadBalancerSourceRanges
	}
	if text := strings.TrimSpace(s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]); text != "" {
		return strings.Split(text, ",")
	}
	return nil
}

// sliceEndpoints returns the endpoints of one slice, without those whose address is none.
func sliceEndpoints(e *discoveryv1.EndpointSlice) []svcproxy.Endpoint {
	ports := map[string]uint16{}
	for _, p := range e.Ports {
		if p.Port == nil {
			continue
		}
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		ports[name] = uint16(*p.Port)
	}
	var out []svcproxy.Endpoint
	for _, x := range e.Endpoints {
		if len(x.Addresses) == 0 {
			continue
		}
		a, err := netip.ParseAddr(x.Addresses[0]) // by the API, further ones are of the same endpoint
		if err != nil {
			continue
		}
		yes := func(b *bool, def bool) bool {
			if b == nil {
				return def
			}
			return *b
		}
		ready := yes(x.Conditions.Ready, true)
		p := svcproxy.Endpoint{
			Addr: a, Ports: ports, Ready: ready,
			Serving: yes(x.Conditions.Serving, ready), Terminating: yes(x.Conditions.Terminating, false),
		}
		if x.Hostname != nil {
			p.Hostname = *x.Hostname
		}
		if x.NodeName != nil {
			p.Node = *x.NodeName
		}
		if x.Hints != nil && ready {
			for _, z := range x.Hints.ForZones {
				p.Zones = append(p.Zones, z.Name)
			}
			for _, n := range x.Hints.ForNodes {
				p.Nodes = append(p.Nodes, n.Name)
			}
		}
		out = append(out, p)
	}
	return out
}
