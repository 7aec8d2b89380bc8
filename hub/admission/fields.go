package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/registry"
)

// What no node of this fleet can do is refused here, instead of being ignored later.
// docs/fields.md lists every field, and which of them are refused.

// refuseFields refuses new pods that ask for what is not served.
func refuseFields(_ context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error {
	if a.Operation != registry.OpCreate {
		return nil
	}
	if err := unservedPod(&pod.Spec); err != nil {
		return refuse.Forbidden(a, err)
	}
	return nil
}

// unservedPod returns why no node could run the pod as it asks, nil when one could.
func unservedPod(spec *corev1.PodSpec) error {
	if len(spec.ResourceClaims) > 0 {
		return fmt.Errorf("pod rejected: spec.resourceClaims: nothing allocates devices here, so the devices of %q would never come; "+
			"take the claim away, or mount a device with a hostPath volume in a privileged container", spec.ResourceClaims[0].Name)
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range list {
			for _, p := range c.Ports {
				if p.HostPort != 0 && p.Protocol == corev1.ProtocolSCTP {
					return fmt.Errorf("pod rejected: container %q: hostPort %d: nodes forward TCP and UDP only; use hostNetwork for SCTP", c.Name, p.HostPort)
				}
			}
		}
	}
	return nil
}

// refuseSCTP refuses Services that would have to forward SCTP. Where nothing is forwarded, in a headless Service or an
// ExternalName, the protocol is only a part of DNS records.
func refuseSCTP(_ context.Context, a *registry.AdmissionRequest) error {
	svc, ok := a.Object.(*corev1.Service)
	if !ok || a.Target.Subresource != "" || a.Operation != registry.OpCreate && a.Operation != registry.OpUpdate {
		return nil
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	for _, p := range svc.Spec.Ports {
		if p.Protocol == corev1.ProtocolSCTP {
			return refuse.Forbidden(a, fmt.Errorf("port %d: nodes forward TCP and UDP only; make the Service headless (clusterIP: None) "+
				"and let clients connect to its pods", p.Port))
		}
	}
	return nil
}
