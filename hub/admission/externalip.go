package admission

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/kube"
)

// externalIPs refuses addresses of the cluster's own networks: with them a Service would get what is sent to another one,
// or to a pod (CVE-2020-8554). What a stored Service has already may stay; nodes do not serve it.
func (s *services) externalIPs(svc, old *corev1.Service) error {
	var errs field.ErrorList
	for i, text := range svc.Spec.ExternalIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil || old != nil && slices.Contains(old.Spec.ExternalIPs, text) {
			continue // validation reports what is no address
		}
		for what, network := range map[string]netip.Prefix{"Services": s.ips.cidr, "pods": s.pods} {
			if network.IsValid() && network.Contains(ip.Unmap()) {
				errs = append(errs, field.Forbidden(field.NewPath("spec", "externalIPs").Index(i),
					fmt.Sprintf("%s is in the network of %s, %s, whose addresses belong to others; use an address of a node", text, what, network)))
			}
		}
	}
	if len(errs) > 0 {
		return kube.NewInvalid(kube.Service.GroupKind(), svc.Name, errs)
	}
	return nil
}
