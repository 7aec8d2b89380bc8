package podrun

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/svcproxy"
)

// HostPorts are the node's ports that its running pods ask for.
func (m *Manager) HostPorts() []svcproxy.HostPort {
	var out []svcproxy.HostPort
	for _, h := range m.all() {
		pod, ips := h.address()
		if pod == nil || pod.Spec.HostNetwork || len(ips) == 0 {
			continue
		}
		target, err := netip.ParseAddr(ips[0])
		if err != nil {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.Containers, sidecars(pod)) {
			for _, p := range c.Ports {
				if p.HostPort == 0 || p.Protocol == corev1.ProtocolSCTP { // the hub refuses that one
					continue
				}
				proto := svcproxy.TCP
				if p.Protocol == corev1.ProtocolUDP {
					proto = svcproxy.UDP
				}
				host, _ := netip.ParseAddr(p.HostIP) // the zero Addr: all of the node's
				out = append(out, svcproxy.HostPort{HostIP: host, Port: uint16(p.HostPort), Protocol: proto,
					Target: netip.AddrPortFrom(target, uint16(p.ContainerPort))})
			}
		}
	}
	return out
}

// sidecars are the init containers that run beside the others.
func sidecars(pod *corev1.Pod) []corev1.Container {
	return slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(c corev1.Container) bool { return !kube.IsSidecar(&c) })
}
