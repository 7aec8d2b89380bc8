package sched

import (
	"maps"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// Snapshot is what sched knows of the fleet: nodes, the pods on them, and counts that follow both, so that no decision
// has to look at every pod. It belongs to one goroutine; Schedule uses its scratch space.
type Snapshot struct {
	nodes map[string]*node
	order []*node // by name
	slots []*node // by node.slot; nil where free
	pods  map[types.UID]*placed
	// orphans are pods on nodes that are not known, or not any more.
	orphans    map[string]map[types.UID]*placed
	namespaces map[string]map[string]string // labels
	images     map[string][]string          // architectures
	located    map[string]*nodeSet          // nodes that have an image; none is empty
	links      map[string]int64             // quality, of nodes where it is not the best
	claims                                  // and volumes

	nominations map[types.UID]nomination // promises to pods that wait for room

	labelsChanged bool // nodes came, went or changed their labels since refresh
	topologies    map[string]*topology
	counts        map[string]*count
	countsUsed    []string // keys of counts, least recently used first
	carried       map[string]*carriedTerm

	trial    trial // scratch, as all below
	feasible []*node
	scores   []int64
	totals   []int64
}

type placed struct {
	*Pod
	node string
}

// node is a Node and the sums over its pods. What each decision reads of each node comes first, in few cache lines.
type node struct {
	cordoned    bool
	dark        bool // the hub does not reach it: nothing that it runs can be ended
	slot        int  // index of the node in every count; stable while it exists
	count       int64
	maxPods     int64          // of count
	hard        []corev1.Taint // NoSchedule and NoExecute
	nominated   []*Pod         // ordered by UID; most nodes have none
	allocatable resources
	used        resources
	scored      resources
	link        int64             // quality of the connection, 0 to maxScore
	owners      map[types.UID]int // pods by controller

	name    string
	obj     *corev1.Node
	pods    map[types.UID]*placed
	low     *lowPods // of pods; nil when they have changed
	ports   []kube.HostPort
	soft    []corev1.Taint // PreferNoSchedule
	arch    string
	variant string // of arch, "v6"; empty when it is not known
	os      string // "linux"; empty when it is not known
}

// NewSnapshot returns an empty fleet.
func NewSnapshot() *Snapshot {
	return &Snapshot{nodes: map[string]*node{}, pods: map[types.UID]*placed{}, orphans: map[string]map[types.UID]*placed{},
		namespaces: map[string]map[string]string{}, images: map[string][]string{}, located: map[string]*nodeSet{}, links: map[string]int64{},
		claims: newClaims(), nominations: map[types.UID]nomination{},
		topologies: map[string]*topology{}, counts: map[string]*count{}, carried: map[string]*carriedTerm{}}
}

// SetNode adds or replaces a node.
func (s *Snapshot) SetNode(obj *corev1.Node) {
	n := s.nodes[obj.Name]
	if n == nil {
		n = &node{name: obj.Name, link: maxScore, pods: map[types.UID]*placed{}, owners: map[types.UID]int{}}
		s.nodes[n.name] = n
		if link, ok := s.links[n.name]; ok {
			n.link = link
		}
		n.slot = slices.Index(s.slots, nil)
		if n.slot < 0 {
			n.slot = len(s.slots)
			s.slots = append(s.slots, nil)
		}
		s.slots[n.slot] = n
		at := sort.Search(len(s.order), func(i int) bool { return s.order[i].name >= n.name })
		s.order = slices.Insert(s.order, at, n)
		s.labelsChanged = true
		s.collectNominated(n)
	} else if !maps.Equal(n.obj.Labels, obj.Labels) {
		s.labelsChanged = true
	}
	n.obj = obj
	n.allocatable = resourcesOf(obj.Status.Allocatable)
	n.maxPods = 0
	if q, ok := obj.Status.Allocatable[corev1.ResourcePods]; ok {
		n.maxPods = q.Value()
	}
	n.hard, n.soft, n.dark, n.cordoned = nil, nil, false, obj.Spec.Unschedulable
	for _, t := range obj.Spec.Taints {
		n.dark = n.dark || t.Key == kube.TaintUnreachable
		if t.Effect == corev1.TaintEffectPreferNoSchedule {
			n.soft = append(n.soft, t)
		} else {
			n.hard = append(n.hard, t)
		}
	}
	n.arch, n.variant = archOf(obj)
	n.os = obj.Labels[corev1.LabelOSStable]
	if n.os == "" {
		n.os = obj.Status.NodeInfo.OperatingSystem
	}
	for _, p := range s.orphans[n.name] {
		s.attach(n, p)
	}
	delete(s.orphans, n.name)
}

// RemoveNode forgets a node. Its pods are remembered: it may come back.
func (s *Snapshot) RemoveNode(name string) {
	n := s.nodes[name]
	if n == nil {
		return
	}
	for _, p := range n.pods {
		s.detach(n, p)
		s.orphan(p)
	}
	for image := range s.located {
		s.SetImageOn(image, name, false)
	}
	delete(s.nodes, name)
	s.slots[n.slot] = nil
	s.order = slices.DeleteFunc(s.order, func(o *node) bool { return o == n })
	s.labelsChanged = true
}

// SetPod says that pod occupies the node named in its spec, whether bound or about to be. A nomination of it ends.
func (s *Snapshot) SetPod(pod *Pod) {
	s.RemovePod(pod.Object.UID)
	if _, ok := s.nominations[pod.Object.UID]; ok {
		s.Nominate(pod, "")
	}
	p := &placed{Pod: pod, node: pod.Object.Spec.NodeName}
	s.pods[pod.Object.UID] = p
	s.use(pod, 1)
	if n := s.nodes[p.node]; n != nil {
		s.attach(n, p)
	} else {
		s.orphan(p)
	}
}

// RemovePod says that a pod occupies nothing any more.
func (s *Snapshot) RemovePod(uid types.UID) {
	p := s.pods[uid]
	if p == nil {
		return
	}
	delete(s.pods, uid)
	s.use(p.Pod, -1)
	if n := s.nodes[p.node]; n != nil {
		s.detach(n, p)
		return
	}
	delete(s.orphans[p.node], uid)
	if len(s.orphans[p.node]) == 0 {
		delete(s.orphans, p.node)
	}
}

// Pod returns a pod of the snapshot.
func (s *Snapshot) Pod(uid types.UID) (*Pod, bool) {
	p, ok := s.pods[uid]
	if !ok {
		return nil, false
	}
	return p.Pod, true
}

// SetNamespace sets a namespace's labels, which pod affinity may select by.
func (s *Snapshot) SetNamespace(name string, labels map[string]string) {
	if old, ok := s.namespaces[name]; ok && maps.Equal(old, labels) {
		return
	}
	s.namespaces[name] = labels
	s.dropCounts()
}

// RemoveNamespace forgets a namespace.
func (s *Snapshot) RemoveNamespace(name string) {
	delete(s.namespaces, name)
	s.dropCounts()
}

// SetImage sets for which architectures an image exists ("arm64", as in GOARCH, or "arm/v7" with a variant); none means
// that it is not known, and then every node may try.
func (s *Snapshot) SetImage(name string, architectures ...string) {
	if len(architectures) == 0 {
		delete(s.images, name)
		return
	}
	s.images[name] = architectures
}

func (s *Snapshot) orphan(p *placed) {
	if s.orphans[p.node] == nil {
		s.orphans[p.node] = map[types.UID]*placed{}
	}
	s.orphans[p.node][p.Object.UID] = p
}

func (s *Snapshot) attach(n *node, p *placed) {
	n.pods[p.Object.UID] = p
	n.count++
	n.low = nil
	n.used.add(p.requests, 1)
	n.scored.add(p.scored, 1)
	n.ports = append(n.ports, p.ports...)
	if p.owner != "" {
		n.owners[p.owner]++
	}
	s.count(n, p, 1)
}

func (s *Snapshot) detach(n *node, p *placed) {
	delete(n.pods, p.Object.UID)
	n.count--
	n.low = nil
	n.used.add(p.requests, -1)
	n.scored.add(p.scored, -1)
	n.ports = without(n.ports, p.ports)
	if p.owner != "" {
		if n.owners[p.owner]--; n.owners[p.owner] == 0 {
			delete(n.owners, p.owner)
		}
	}
	s.count(n, p, -1)
}

// without removes each of gone from ports once, in place.
func without(ports, gone []kube.HostPort) []kube.HostPort {
	for _, port := range gone {
		if i := slices.Index(ports, port); i >= 0 {
			ports = slices.Delete(ports, i, i+1)
		}
	}
	return ports
}

// refresh brings what depends on node labels up to date.
func (s *Snapshot) refresh() {
	if s.labelsChanged {
		s.labelsChanged = false
		clear(s.topologies)
	}
}

// topology holds in which domain of one label key each node is: equal numbers are the same zone, rack or host.
type topology struct {
	domain []int32 // by slot; -1 without the label
	values []string
}

func (s *Snapshot) topology(key string) *topology {
	t := s.topologies[key]
	if t != nil {
		return t
	}
	t = &topology{domain: make([]int32, len(s.slots))}
	number := map[string]int32{}
	for slot, n := range s.slots {
		t.domain[slot] = -1
		if n == nil {
			continue
		}
		value, ok := n.obj.Labels[key]
		if !ok {
			continue
		}
		d, seen := number[value]
		if !seen {
			d = int32(len(t.values))
			number[value] = d
			t.values = append(t.values, value)
		}
		t.domain[slot] = d
	}
	s.topologies[key] = t
	return t
}

func joinSorted(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}
