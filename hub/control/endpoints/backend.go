package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
)

// ipFamilies returns the address families that a Service wants endpoints of.
func ipFamilies(svc *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			out = append(out, discoveryv1.AddressTypeIPv4)
		case corev1.IPv6Protocol:
			out = append(out, discoveryv1.AddressTypeIPv6)
		}
	}
	if len(out) == 0 {
		out = append(out, discoveryv1.AddressTypeIPv4)
	}
	return out
}

// podIP returns the pod's first address of the family that an endpoint may have, "" if it has none. An address that the API
// refuses would block all other changes of its slice.
func podIP(p *corev1.Pod, family discoveryv1.AddressType) string {
	ips := p.Status.PodIPs
	if len(ips) == 0 && p.Status.PodIP != "" {
		ips = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	for _, ip := range ips {
		a, ok := control.EndpointAddress(ip.IP)
		if ok && a.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			return ip.IP
		}
	}
	return ""
}

// hostname returns the pod's DNS name within a headless Service.
func hostname(svc *corev1.Service, p *corev1.Pod) string {
	if p.Spec.Subdomain == svc.Name && p.Namespace == svc.Namespace {
		return p.Spec.Hostname
	}
	return ""
}

// podPort returns the number of a Service's port on one pod; ok is false when the pod has no port of that name.
func podPort(p *corev1.Pod, sp *corev1.ServicePort) (port int32, ok bool) {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return sp.Port, true
		}
		return sp.TargetPort.IntVal, true
	}
	find := func(containers []corev1.Container, only func(*corev1.Container) bool) (int32, bool) {
		for i := range containers {
			if !only(&containers[i]) {
				continue
			}
			for _, cp := range containers[i].Ports {
				if cp.Name == sp.TargetPort.StrVal && protocol(cp.Protocol) == protocol(sp.Protocol) {
					return cp.ContainerPort, true
				}
			}
		}
		return 0, false
	}
	if n, ok := find(p.Spec.Containers, func(*corev1.Container) bool { return true }); ok {
		return n, true
	}
	return find(p.Spec.InitContainers, func(c *corev1.Container) bool { // sidecars
		return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

func protocol(p corev1.Protocol) corev1.Protocol {
	return cmp.Or(p, corev1.ProtocolTCP)
}

// conditions returns those of an endpoint. Proxies use ready: it is false for a pod that is being deleted, and always true for a
// Service that publishes not-ready addresses.
func conditions(svc *corev1.Service, p *corev1.Pod) discoveryv1.EndpointConditions {
	terminating := p.DeletionTimestamp != nil
	serving := control.PodReady(p)
	ready := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	return discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
}

// slicePorts returns the Service's ports with their numbers on one pod.
func slicePorts(svc *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		n, ok := podPort(p, sp)
		if !ok {
			continue
		}
		name, proto := sp.Name, protocol(sp.Protocol)
		out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &proto, AppProtocol: sp.AppProtocol})
	}
	return out
}

// portsKey returns a key that is equal for equal sets of ports.
func portsKey(ports []discoveryv1.EndpointPort) string {
	var parts []string
	for _, p := range ports {
		s := func(v *string) string {
			if v == nil {
				return ""
			}
			return *v
		}
		n, proto := int32(0), corev1.ProtocolTCP
		if p.Port != nil {
			n = *p.Port
		}
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		parts = append(parts, fmt.Sprintf("%s=%d/%s/%s", s(p.Name), n, proto, s(p.AppProtocol)))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
