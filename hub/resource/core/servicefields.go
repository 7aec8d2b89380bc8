package core

import (
	"slices"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	serviceapi "k8s.io/kubernetes/pkg/api/service"
	api "k8s.io/kubernetes/pkg/apis/core"
)

// A Service is a union whose discriminator is its type, with fields that are allocated from pools. The functions here
// read an update as its writer meant it: what is left out is kept, and what stops making sense with a new type goes,
// unless the writer changed it too (which validation then refuses).

func needsClusterIP(svc *api.Service) bool { return svc.Spec.Type != api.ServiceTypeExternalName }

func mayHaveNodePorts(svc *api.Service) bool {
	return svc.Spec.Type == api.ServiceTypeNodePort || svc.Spec.Type == api.ServiceTypeLoadBalancer
}

func getsNodePorts(svc *api.Service) bool {
	allocate := svc.Spec.AllocateLoadBalancerNodePorts
	return svc.Spec.Type == api.ServiceTypeNodePort ||
		svc.Spec.Type == api.ServiceTypeLoadBalancer && (allocate == nil || *allocate)
}

func needsHealthCheckPort(svc *api.Service) bool {
	return svc.Spec.Type == api.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == api.ServiceExternalTrafficPolicyLocal
}

func nodePorts(svc *api.Service) map[int32]bool {
	ports := map[int32]bool{}
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			ports[p.NodePort] = true
		}
	}
	return ports
}

// keepAllocated fills in what was allocated before and is left out now.
func keepAllocated(svc, old *api.Service) {
	if needsClusterIP(old) && needsClusterIP(svc) {
		if svc.Spec.ClusterIP == "" {
			svc.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(svc.Spec.ClusterIPs) == 0 {
			svc.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	}
	if getsNodePorts(old) && getsNodePorts(svc) {
		keepNodePorts(svc, old)
	}
	if needsHealthCheckPort(old) && needsHealthCheckPort(svc) && svc.Spec.HealthCheckNodePort == 0 {
		svc.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// keepNodePorts gives each port without a node port the one that its namesake had, if no port of svc asks for that one.
func keepNodePorts(svc, old *api.Service) {
	asked := nodePorts(svc)
	byName := map[string]int32{}
	for _, p := range old.Spec.Ports {
		byName[p.Name] = p.NodePort
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if before := byName[p.Name]; p.NodePort == 0 && !asked[before] {
			p.NodePort = before
		}
	}
}

// alignClusterIPs makes clusterIPs follow clusterIP for writers that set only the singular.
func alignClusterIPs(svc, old *api.Service) {
	samePlural := slices.Equal(svc.Spec.ClusterIPs, old.Spec.ClusterIPs)
	switch {
	case svc.Spec.ClusterIP == old.Spec.ClusterIP:
		if len(svc.Spec.ClusterIPs) == 0 {
			svc.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	case !samePlural: // both changed: validation compares them
	case svc.Spec.ClusterIP == "":
		svc.Spec.ClusterIPs = nil
	default:
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	}
}

// dropForType clears what the new type does not use and the writer did not change.
func dropForType(svc, old *api.Service) {
	if needsClusterIP(old) && !needsClusterIP(svc) {
		if svc.Spec.ClusterIP == old.Spec.ClusterIP && slices.Equal(svc.Spec.ClusterIPs, old.Spec.ClusterIPs) {
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "", nil
		}
		if slices.Equal(svc.Spec.IPFamilies, old.Spec.IPFamilies) {
			svc.Spec.IPFamilies = nil
		}
		if apiequality.Semantic.DeepEqual(svc.Spec.IPFamilyPolicy, old.Spec.IPFamilyPolicy) {
			svc.Spec.IPFamilyPolicy = nil
		}
	}
	if mayHaveNodePorts(old) && !mayHaveNodePorts(svc) && noNewNodePorts(svc, old) {
		for i := range svc.Spec.Ports {
			svc.Spec.Ports[i].NodePort = 0
		}
	}
	if needsHealthCheckPort(old) && !needsHealthCheckPort(svc) && svc.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		svc.Spec.HealthCheckNodePort = 0
	}
	if old.Spec.Type == api.ServiceTypeLoadBalancer && svc.Spec.Type != api.ServiceTypeLoadBalancer {
		if apiequality.Semantic.DeepEqual(svc.Spec.AllocateLoadBalancerNodePorts, old.Spec.AllocateLoadBalancerNodePorts) {
			svc.Spec.AllocateLoadBalancerNodePorts = nil
		}
		if apiequality.Semantic.DeepEqual(svc.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
			svc.Spec.LoadBalancerClass = nil
		}
	}
	if serviceapi.ExternallyAccessible(old) && !serviceapi.ExternallyAccessible(svc) &&
		svc.Spec.ExternalTrafficPolicy == old.Spec.ExternalTrafficPolicy {
		svc.Spec.ExternalTrafficPolicy = ""
	}
	if svc.Spec.Type != api.ServiceTypeLoadBalancer {
		svc.Status.LoadBalancer = api.LoadBalancerStatus{}
	}
}

func noNewNodePorts(svc, old *api.Service) bool {
	before := nodePorts(old)
	for port := range nodePorts(svc) {
		if !before[port] {
			return false
		}
	}
	return true
}

// dropInternalPolicy clears what defaulting sets for ExternalName too, where it has no meaning.
func dropInternalPolicy(svc *api.Service) {
	if svc.Spec.Type == api.ServiceTypeExternalName {
		svc.Spec.InternalTrafficPolicy = nil
	}
}
