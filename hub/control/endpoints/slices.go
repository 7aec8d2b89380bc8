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
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
	endpoints []discoveryv1.Endpoint     // each with the pod as TargetRef
}

// key is equal for groups and slices that belong together.
func (g *group) key() string { return string(g.family) + " " + portsKey(g.ports) }

// groupsOf sorts the Service's pods into groups. zone returns a node's zone ("" for none).
func groupsOf(svc *corev1.Service, pods []*corev1.Pod, zone func(node string) string) []*group {
	byKey := map[string]*group{}
	for _, family := range ipFamilies(svc) {
		for _, p := range pods {
			ip := podIP(p, family)
			if ip == "" || control.PodFinished(p) {
				continue
			}
			g := &group{family: family, ports: slicePorts(svc, p)}
			if known := byKey[g.key()]; known != nil {
				g = known
			} else {
				byKey[g.key()] = g
			}
			g.endpoints = append(g.endpoints, endpoint(svc, p, ip, zone))
		}
	}
	// Sorted, so that equal pods lead to equal writes whatever the order of the map.
	return slices.SortedFunc(maps.Values(byKey), func(a, b *group) int { return cmp.Compare(a.key(), b.key()) })
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
	return e
}

// planSlices returns what to write so that existing (the Service's slices that this controller keeps) have what is in groups. An
// endpoint stays in its slice, so that the change of one pod is the change of one slice.
func planSlices(svc *corev1.Service, existing []*discoveryv1.EndpointSlice, groups []*group) []control.Write {
	families := ipFamilies(svc)
	if len(groups) == 0 { // an empty slice distinguishes "no endpoints" from "not reconciled yet"
		for _, f := range families {
			groups = append(groups, &group{family: f, ports: []discoveryv1.EndpointPort{}})
		}
	}
	mine := map[string][]*discoveryv1.EndpointSlice{}
	var writes []control.Write
	for _, s := range existing {
		k := (&group{family: s.AddressType, ports: s.Ports}).key()
		if slices.ContainsFunc(groups, func(g *group) bool { return g.key() == k }) {
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
		writes = append(writes, planGroup(svc, mine[g.key()], g, taken)...)
	}
	return writes
}

// planGroup returns the writes for the slices of one group. Endpoints stay where they are; new ones fill the free room of slices in
// order, then new slices. Empty slices are deleted but for one. taken has the names in use; planGroup adds to it.
func planGroup(svc *corev1.Service, existing []*discoveryv1.EndpointSlice, g *group, taken map[string]bool) []control.Write {
	wanted := map[types.UID]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		wanted[e.TargetRef.UID] = e
	}
	type room struct {
		old, new *discoveryv1.EndpointSlice // old: shared, nil for a new slice; new: a copy that may be changed
	}
	var rooms []*room
	for _, s := range existing {
		r := &room{old: s, new: s.DeepCopy()}
		r.new.Endpoints = nil
		for _, e := range s.Endpoints {
			if e.TargetRef == nil {
				continue
			}
			if w, ok := wanted[e.TargetRef.UID]; ok {
				r.new.Endpoints = append(r.new.Endpoints, w)
				delete(wanted, e.TargetRef.UID)
			}
		}
		rooms = append(rooms, r)
	}
	var left []discoveryv1.Endpoint // those that no slice has yet, in the order of the pods
	for _, e := range g.endpoints {
		if _, ok := wanted[e.TargetRef.UID]; ok {
			left = append(left, e)
		}
	}
	for _, r := range rooms {
		n := min(len(left), max(0, perSlice-len(r.new.Endpoints)))
		r.new.Endpoints = append(r.new.Endpoints, left[:n]...)
		left = left[n:]
	}
	for len(left) > 0 || len(rooms) == 0 {
		n := min(len(left), perSlice)
		s := newSlice(svc, g, taken)
		s.Endpoints = append([]discoveryv1.Endpoint{}, left[:n]...)
		left = left[n:]
		rooms = append(rooms, &room{new: s})
	}
	var writes []control.Write
	keptOne := false
	for i, r := range rooms {
		last := i == len(rooms)-1
		if len(r.new.Endpoints) == 0 && r.old != nil && (keptOne || !last) {
			writes = append(writes, control.Write{Old: r.old, Delete: true})
			continue
		}
		keptOne = true
		if r.new.Endpoints == nil {
			r.new.Endpoints = []discoveryv1.Endpoint{} // in JSON [] and not null, which clients do not expect
		}
		label(svc, r.new)
		if r.old == nil {
			writes = append(writes, control.Write{Object: r.new})
		} else if !equality.Semantic.DeepEqual(r.old, r.new) {
			writes = append(writes, control.Write{Object: r.new, Old: r.old})
		}
	}
	return writes
}

// newSlice returns a slice whose name follows from its content: while the cache does not show it yet it cannot be made twice.
func newSlice(svc *corev1.Service, g *group, taken map[string]bool) *discoveryv1.EndpointSlice {
	name := ""
	for n := 0; name == "" || taken[name]; n++ { // n makes the names of a group's slices differ
		h := fnv.New32a()
		_, _ = fmt.Fprintf(h, "%s %s %d", svc.UID, g.key(), n)
		name = svc.Name + "-" + rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 36))
	}
	taken[name] = true
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: name, GenerateName: svc.Name + "-",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, kube.Service)}},
		AddressType: g.family,
		Ports:       g.ports,
	}
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
