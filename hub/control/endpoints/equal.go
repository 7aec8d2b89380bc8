package endpoints

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A sync compares each endpoint of its Service with what is there. By reflection that was most of what a sync cost.

// equal reports whether two endpoints are the same.
func equal(a, b *discoveryv1.Endpoint) bool {
	return slices.Equal(a.Addresses, b.Addresses) && same(a.Hostname, b.Hostname) && same(a.NodeName, b.NodeName) && same(a.Zone, b.Zone) &&
		same(a.TargetRef, b.TargetRef) && same(a.Conditions.Ready, b.Conditions.Ready) && same(a.Conditions.Serving, b.Conditions.Serving) &&
		same(a.Conditions.Terminating, b.Conditions.Terminating) && len(a.DeprecatedTopology)+len(b.DeprecatedTopology) == 0 && equalHints(a.Hints, b.Hints)
}

func equalHints(a, b *discoveryv1.EndpointHints) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.ForZones, b.ForZones) && slices.Equal(a.ForNodes, b.ForNodes)
}

// same reports whether two pointers are both nil or point to equal values.
func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// equalSubsets reports whether two lists of subsets are the same.
func equalSubsets(a, b []corev1.EndpointSubset) bool {
	addresses := func(a, b corev1.EndpointAddress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname && same(a.NodeName, b.NodeName) && same(a.TargetRef, b.TargetRef)
	}
	return slices.EqualFunc(a, b, func(a, b corev1.EndpointSubset) bool {
		return slices.EqualFunc(a.Addresses, b.Addresses, addresses) && slices.EqualFunc(a.NotReadyAddresses, b.NotReadyAddresses, addresses) &&
			slices.EqualFunc(a.Ports, b.Ports, func(a, b corev1.EndpointPort) bool {
				return a.Name == b.Name && a.Port == b.Port && a.Protocol == b.Protocol && same(a.AppProtocol, b.AppProtocol)
			})
	})
}
