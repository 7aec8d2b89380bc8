package endpoints

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// ManagedBy is the value of the managed-by label on slices that this controller keeps.
	ManagedBy = "endpointslice-controller.k8s.io"
	// perSlice is how many endpoints a slice has at most, as in Kubernetes: a pod's change writes the whole slice.
	perSlice = 100
)

// group is one family and one set of ports: what an EndpointSlice can hold together.
type group struct {
	family    discoveryv1.AddressType    // immutable in a slice
	ports     []discoveryv1.EndpointPort // of all its endpoints; pods may have other numbers for one named port
	key       string                     // keyOf family and ports
	endpoints []discoveryv1.Endpoint     // each with the pod as TargetRef
}

// keyOf returns a key that is equal for groups and slices that belong together.
func keyOf(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	return string(family) + " " + portsKey(ports)
}

// groupsOf sorts the Service's pods into groups. zone returns a node's zone ("" for none).
func groupsOf(svc *corev1.Service, pods []*corev1.Pod, zone func(node string) string) []*group {
	byKey := map[string]*group{}
	for _, family := range ipFamilies(svc) {
		for _, p := range pods {
			ip := podIP(p, family)
			if ip == "" || control.PodFinished(p) {
				continue
			}
			ports := slicePorts(svc, p)
			key := keyOf(family, ports)
			g := byKey[key]
			if g == nil {
				g = &group{family: family, ports: ports, key: key}
				byKey[key] = g
			}
			g.endpoints = append(g.endpoints, endpoint(svc, p, ip, zone))
		}
	}
	// Sorted, so that equal pods lead to equal writes whatever the order of the map.
	return slices.SortedFunc(maps.Values(byKey), func(a, b *group) int { return cmp.Compare(a.key, b.key) })
}

// endpoint returns a pod's endpoint with the address ip.
func endpoint(svc *corev1.Service, p *corev1.Pod, ip string, zone func(string) string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: conditions(svc, p),
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		node := p.Spec.NodeName
		e.NodeName = &node
		if z := zone(node); z != "" {
			e.Zone = &z
		}
	}
	if h := hostname(svc, p); h != "" {
		e.Hostname = &h
	}
	if *e.Conditions.Ready {
		e.Hints = hints(svc, &e)
	}
	return e
}

// hints returns from where an endpoint is to be preferred, by the Service's trafficDistribution; nil: from everywhere alike.
func hints(svc *corev1.Service, e *discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	if svc.Spec.TrafficDistribution == nil {
		return nil
	}
	var h discoveryv1.EndpointHints
	switch *svc.Spec.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferSameNode:
		if e.NodeName != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
	default:
		return nil
	}
	if e.Zone != nil {
		h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
	}
	if h.ForNodes == nil && h.ForZones == nil {
		return nil
	}
	return &h
}

// planSlices returns what to write so that existing (the Service's slices that this controller keeps) have what is in groups. An
// endpoint stays in its slice, so that the change of one pod is the change of one slice.
func planSlices(svc *corev1.Service, existing []*discoveryv1.EndpointSlice, groups []*group) []control.Write {
	families := ipFamilies(svc)
	if len(groups) == 0 { // an empty slice distinguishes "no endpoints" from "not reconciled yet"
		for _, f := range families {
			none := []discoveryv1.EndpointPort{}
			groups = append(groups, &group{family: f, ports: none, key: keyOf(f, none)})
		}
	}
	mine := map[string][]*discoveryv1.EndpointSlice{}
	var writes []control.Write
	for _, s := range existing {
		k := keyOf(s.AddressType, s.Ports)
		if slices.ContainsFunc(groups, func(g *group) bool { return g.key == k }) {
			mine[k] = append(mine[k], s)
		} else {
			writes = append(writes, control.Write{Old: s, Delete: true})
		}
	}
	taken := map[string]bool{}
	for _, s := range existing {
		taken[s.Name] = true
	}
	for _, g := range groups {
		writes = append(writes, planGroup(svc, mine[g.key], g, taken)...)
	}
	return writes
}

// newSlice returns a slice whose name follows from its content: while the cache does not show it yet it cannot be made twice.
func newSlice(svc *corev1.Service, g *group, taken map[string]bool) *discoveryv1.EndpointSlice {
	name := ""
	for n := 0; name == "" || taken[name]; n++ { // n makes the names of a group's slices differ
		h := fnv.New32a()
		_, _ = fmt.Fprintf(h, "%s %s %d", svc.UID, g.key, n)
		name = svc.Name + "-" + rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 36))
	}
	taken[name] = true
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: name, GenerateName: svc.Name + "-",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, kube.Service)}},
		AddressType: g.family,
		Ports:       g.ports,
	}
	label(svc, s)
	return s
}

// label gives a slice the Service's labels and those by which slices are found.
func label(svc *corev1.Service, s *discoveryv1.EndpointSlice) {
	s.Labels = serviceLabels(svc)
	s.Labels[discoveryv1.LabelServiceName] = svc.Name
	s.Labels[discoveryv1.LabelManagedBy] = ManagedBy
}

// serviceLabels returns the Service's labels without those that only controllers set, and with the mark of a headless Service.
func serviceLabels(svc *corev1.Service) map[string]string {
	out := map[string]string{}
	for k, v := range svc.Labels {
		switch k {
		case discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy, corev1.IsHeadlessService:
		default:
			out[k] = v
		}
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	return out
}
