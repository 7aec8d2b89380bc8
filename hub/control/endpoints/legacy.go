package endpoints

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
)

// The Endpoints API is deprecated and still what many tools read: one object for each Service, of one family, with at
// most a thousand addresses.
const (
	legacyManagedByLabel = "endpoints.kubernetes.io/managed-by"
	legacyManagedBy      = "endpoint-controller"
	legacyMax            = 1000
	truncated            = "truncated"
)

// planLegacy returns the write that brings a Service's Endpoints up to date; nil when they are.
func planLegacy(svc *corev1.Service, pods []*corev1.Pod, old *corev1.Endpoints) *control.Write {
	subsets, over := subsetsOf(svc, pods)
	n := &corev1.Endpoints{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name},
	}
	if old != nil {
		n.ObjectMeta = *old.ObjectMeta.DeepCopy()
	}
	n.Subsets = subsets
	n.Labels = serviceLabels(svc)
	n.Labels[legacyManagedByLabel] = legacyManagedBy
	if over {
		metav1.SetMetaDataAnnotation(&n.ObjectMeta, corev1.EndpointsOverCapacity, truncated)
	} else {
		delete(n.Annotations, corev1.EndpointsOverCapacity)
	}
	switch {
	case old == nil:
		return &control.Write{Object: n}
	case maps.Equal(old.Labels, n.Labels) && maps.Equal(old.Annotations, n.Annotations) && equalSubsets(old.Subsets, n.Subsets):
		return nil
	}
	return &control.Write{Object: n, Old: old}
}

// subsetsOf groups addresses by ports, and reports whether some had to be left out.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) (subsets []corev1.EndpointSubset, over bool) {
	family := ipFamilies(svc)[0]
	byPorts := map[string]*corev1.EndpointSubset{}
	count := 0
	sorted := slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		// Ready ones first, so that unready ones are left out before them.
		ar, br := control.PodReady(a), control.PodReady(b)
		if ar != br {
			if ar {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	for _, p := range sorted {
		ip := podIP(p, family)
		leaving := p.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses
		if ip == "" || control.PodFinished(p) || leaving {
			continue
		}
		ports := slicePorts(svc, p)
		if len(ports) == 0 && svc.Spec.ClusterIP != corev1.ClusterIPNone {
			continue
		}
		if count++; count > legacyMax {
			over = true
			break
		}
		k := portsKey(ports)
		s := byPorts[k]
		if s == nil {
			s = &corev1.EndpointSubset{Ports: legacyPorts(ports)}
			byPorts[k] = s
		}
		addr := corev1.EndpointAddress{IP: ip, Hostname: hostname(svc, p),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		if p.Spec.NodeName != "" {
			node := p.Spec.NodeName
			addr.NodeName = &node
		}
		if svc.Spec.PublishNotReadyAddresses || control.PodReady(p) {
			s.Addresses = append(s.Addresses, addr)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, addr)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(byPorts)) {
		s := byPorts[k]
		byIP := func(a, b corev1.EndpointAddress) int { return cmp.Compare(a.IP, b.IP) }
		slices.SortFunc(s.Addresses, byIP)
		slices.SortFunc(s.NotReadyAddresses, byIP)
		subsets = append(subsets, *s)
	}
	return subsets, over
}

func legacyPorts(ports []discoveryv1.EndpointPort) []corev1.EndpointPort {
	var out []corev1.EndpointPort
	for _, p := range ports {
		out = append(out, corev1.EndpointPort{Name: *p.Name, Port: *p.Port, Protocol: *p.Protocol, AppProtocol: p.AppProtocol})
	}
	return out
}
