package endpointmirror

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// plan returns what to write so that existing, the slices that this controller keeps for the Endpoints, show what these contain.
// One slice has the addresses of one subset and family. It is replaced as a whole, because what users make is small.
func plan(svc *corev1.Service, eps *corev1.Endpoints, existing []*discoveryv1.EndpointSlice) []control.Write {
	wanted := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range mirror(svc, eps) {
		wanted[s.Name] = s
	}
	var writes []control.Write
	for _, old := range existing {
		s := wanted[old.Name]
		delete(wanted, old.Name)
		if s == nil || s.AddressType != old.AddressType { // which is immutable
			writes = append(writes, control.Write{Old: old, Delete: true})
			continue
		}
		now := old.DeepCopy()
		now.Labels, now.Annotations, now.OwnerReferences = s.Labels, s.Annotations, s.OwnerReferences
		now.Endpoints, now.Ports = s.Endpoints, s.Ports
		if !equality.Semantic.DeepEqual(old, now) {
			writes = append(writes, control.Write{Object: now, Old: old})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		writes = append(writes, control.Write{Object: wanted[name]})
	}
	return writes
}

// mirror returns the slices of an Endpoints object.
func mirror(svc *corev1.Service, eps *corev1.Endpoints) []*discoveryv1.EndpointSlice {
	type key struct {
		family discoveryv1.AddressType
		ports  string
	}
	byKey := map[key]*discoveryv1.EndpointSlice{}
	for i := range eps.Subsets {
		sub := &eps.Subsets[i]
		ports, portsKey := slicePorts(sub.Ports)
		count := 0
		add := func(a *corev1.EndpointAddress, ready bool) {
			family, ok := familyOf(a.IP)
			if !ok || count >= maxPerSubset {
				return
			}
			k := key{family, portsKey}
			s := byKey[k]
			if s == nil {
				s = newSlice(svc, eps, fmt.Sprintf("%s %s", family, portsKey))
				s.AddressType, s.Ports = family, ports
				byKey[k] = s
			}
			if slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Addresses[0] == a.IP }) ||
				len(s.Endpoints) >= maxPerSubset {
				return
			}
			count++
			s.Endpoints = append(s.Endpoints, endpoint(a, ready))
		}
		for j := range sub.Addresses {
			add(&sub.Addresses[j], true)
		}
		for j := range sub.NotReadyAddresses {
			add(&sub.NotReadyAddresses[j], false)
		}
	}
	out := slices.Collect(maps.Values(byKey))
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// familyOf returns the family of an address; ok is false when it is none.
func familyOf(ip string) (discoveryv1.AddressType, bool) {
	a, err := netip.ParseAddr(ip)
	switch {
	case err != nil:
		return "", false
	case a.Is4():
		return discoveryv1.AddressTypeIPv4, true
	}
	return discoveryv1.AddressTypeIPv6, true
}

// endpoint returns an address as an endpoint. It shares nothing with a.
func endpoint(a *corev1.EndpointAddress, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: a.TargetRef.DeepCopy()}
	if a.NodeName != nil {
		node := *a.NodeName
		e.NodeName = &node
	}
	if a.Hostname != "" {
		host := a.Hostname
		e.Hostname = &host
	}
	return e
}

// slicePorts returns a subset's ports as a slice has them, and a key that is equal for equal ports.
func slicePorts(ports []corev1.EndpointPort) ([]discoveryv1.EndpointPort, string) {
	out := []discoveryv1.EndpointPort{}
	var keys []string
	for _, p := range ports {
		name, number, proto := p.Name, p.Port, cmp.Or(p.Protocol, corev1.ProtocolTCP)
		out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &proto, AppProtocol: p.AppProtocol})
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		keys = append(keys, fmt.Sprintf("%s=%d/%s/%s", name, number, proto, app))
	}
	slices.Sort(keys)
	return out, strings.Join(keys, ",")
}

// newSlice returns a slice whose name follows from its content: while the cache does not show it yet it cannot be made twice.
func newSlice(svc *corev1.Service, eps *corev1.Endpoints, holds string) *discoveryv1.EndpointSlice {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s %s", eps.UID, holds)
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: eps.Namespace, GenerateName: svc.Name + "-",
			Name:            svc.Name + "-" + rand.SafeEncodeString(strconv.FormatUint(h.Sum64(), 36)),
			Labels:          map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(eps, kube.Endpoints)}},
	}
	for k, v := range eps.Labels {
		if k != corev1.IsHeadlessService {
			s.Labels[k] = v
		}
	}
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = svc.Name, ManagedBy
	for k, v := range eps.Annotations {
		if k == corev1.LastAppliedConfigAnnotation || k == corev1.EndpointsLastChangeTriggerTime || k == corev1.EndpointsOverCapacity {
			continue
		}
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[k] = v
	}
	return s
}
