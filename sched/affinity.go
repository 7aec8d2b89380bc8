package sched

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// podTerm is one term of a pod's affinity or anti-affinity to other pods.
type podTerm struct {
	key        string // topology
	selector   labels.Selector
	namespaces []string        // explicit ones
	nsSelector labels.Selector // selects namespaces by label; nothing by default
	weight     int64           // of a preferred term
	id         string          // equal terms have equal ids
}

func newPodTerm(pod *corev1.Pod, t *corev1.PodAffinityTerm, weight int64) (podTerm, error) {
	sel, err := selectorOf(t.LabelSelector, pod, t.MatchLabelKeys, t.MismatchLabelKeys)
	if err != nil {
		return podTerm{}, fmt.Errorf("pod affinity term on %s: %w", t.TopologyKey, err)
	}
	out := podTerm{key: t.TopologyKey, selector: sel, namespaces: t.Namespaces, nsSelector: labels.Nothing(), weight: weight}
	if t.NamespaceSelector != nil {
		if out.nsSelector, err = metav1.LabelSelectorAsSelector(t.NamespaceSelector); err != nil {
			return podTerm{}, fmt.Errorf("pod affinity term on %s: namespaces: %w", t.TopologyKey, err)
		}
	} else if len(t.Namespaces) == 0 {
		out.namespaces = []string{pod.Namespace}
	}
	nsText := "none" // what labels.Nothing prints is what labels.Everything prints
	if t.NamespaceSelector != nil {
		nsText = "by " + out.nsSelector.String()
	}
	text := out.selector.String()
	if t.LabelSelector == nil {
		text = "nothing"
	}
	out.id = strings.Join([]string{out.key, joinSorted(out.namespaces), nsText, text}, " ")
	return out, nil
}

// matches reports whether the term is about pod.
func (t *podTerm) matches(s *Snapshot, pod *corev1.Pod) bool {
	if !slices.Contains(t.namespaces, pod.Namespace) && !t.nsSelector.Matches(labels.Set(s.namespaces[pod.Namespace])) {
		return false
	}
	return t.selector.Matches(labels.Set(pod.Labels))
}

func (p *Pod) prepareTerms() {
	a := p.Object.Spec.Affinity
	if a == nil {
		return
	}
	add := func(to *[]podTerm, t *corev1.PodAffinityTerm, weight int64) {
		term, err := newPodTerm(p.Object, t, weight)
		if err != nil {
			p.err = err
			return
		}
		if weight == 0 && slices.ContainsFunc(*to, func(o podTerm) bool { return o.id == term.id }) {
			return // a requirement holds once, however often it is repeated
		}
		*to = append(*to, term)
	}
	if a := a.PodAffinity; a != nil {
		for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
			add(&p.affinity, &a.RequiredDuringSchedulingIgnoredDuringExecution[i], 0)
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
			add(&p.preferredAffinity, &t.PodAffinityTerm, int64(t.Weight))
		}
	}
	if a := a.PodAntiAffinity; a != nil {
		for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
			add(&p.antiAffinity, &a.RequiredDuringSchedulingIgnoredDuringExecution[i], 0)
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
			add(&p.preferredAntiAffinity, &t.PodAffinityTerm, -int64(t.Weight))
		}
	}
}

// carriedTerm counts on which nodes pods have a term: those terms bind, or draw, the pods that come after them.
type carriedTerm struct {
	term   podTerm
	forbid bool  // required anti-affinity
	weight int64 // of all others, negative for anti-affinity
	on     count
}

// hardAffinityWeight is how much a pod's required affinity draws those that it is about.
const hardAffinityWeight = 1

// carry follows the terms of a pod that came to a node or left it.
func (s *Snapshot) carry(n *node, p *placed, by int32) {
	each := func(terms []podTerm, kind string, forbid bool) {
		for _, t := range terms {
			weight := t.weight
			if kind == "affinity" {
				weight = hardAffinityWeight
			}
			key := fmt.Sprintf("%s %d %s", kind, weight, t.id)
			c := s.carried[key]
			if c == nil {
				c = &carriedTerm{term: t, forbid: forbid, weight: weight}
				s.carried[key] = c
			}
			if c.on.add(n.slot, by); c.on.total == 0 {
				delete(s.carried, key)
			}
		}
	}
	each(p.antiAffinity, "forbid", true)
	each(p.affinity, "affinity", false)
	each(p.preferredAffinity, "prefer", false)
	each(p.preferredAntiAffinity, "avoid", false)
}

// domainCount is how often something is found in each domain of a topology.
type domainCount struct {
	*topology
	counts []int32
}

func (d *domainCount) at(n *node) int32 {
	if i := d.domain[n.slot]; i >= 0 {
		return d.counts[i]
	}
	return 0
}

// termCount is how often a term is matched, or carried, in each domain of its topology.
type termCount struct {
	term *podTerm
	domainCount
}

// podAffinity refuses nodes by required affinity and anti-affinity: the pod's own, and the anti-affinity of those there.
type podAffinity struct {
	snap *Snapshot
	pod  *Pod

	near, far, forbidden []termCount
	found                int32 // pods that satisfy all of the pod's required terms, in domains of any of them
	// self is set when the pod satisfies its own terms. When none other does, it may go anywhere: the first of a group must,
	// or the group could never start.
	self bool
}

func (f *podAffinity) prepare(s *Snapshot, p *Pod) bool {
	f.snap, f.pod = s, p
	f.prepareNear()
	for i := range p.antiAffinity {
		t := &p.antiAffinity[i]
		if c := s.termCount(t); c.total > 0 {
			topo := s.topology(t.key)
			f.far = append(f.far, termCount{t, domainCount{topo, s.perDomain(topo, c, nil)}})
		}
	}
	for _, c := range s.carried {
		if c.forbid && c.term.matches(s, p.Object) {
			topo := s.topology(c.term.key)
			f.forbidden = append(f.forbidden, termCount{&c.term, domainCount{topo, s.perDomain(topo, &c.on, nil)}})
		}
	}
	return len(f.near)+len(f.far)+len(f.forbidden) > 0
}

// prepareNear counts the pods that satisfy all of the pod's required terms at once, as Kubernetes does.
func (f *podAffinity) prepareNear() {
	p := f.pod
	if len(p.affinity) == 0 {
		return
	}
	ids := make([]string, len(p.affinity))
	for i := range p.affinity {
		ids[i] = p.affinity[i].id
	}
	slices.Sort(ids)
	c := f.snap.matching("all "+strings.Join(ids, " & "), f.satisfies)
	for i := range p.affinity {
		topo := f.snap.topology(p.affinity[i].key)
		d := domainCount{topo, f.snap.perDomain(topo, c, nil)}
		for _, k := range d.counts {
			f.found += k
		}
		f.near = append(f.near, termCount{&p.affinity[i], d})
	}
	f.self = f.satisfies(p.Object)
}

// satisfies reports whether all of the pod's required terms are about other.
func (f *podAffinity) satisfies(other *corev1.Pod) bool {
	for i := range f.pod.affinity {
		if !f.pod.affinity[i].matches(f.snap, other) {
			return false
		}
	}
	return true
}

func (s *Snapshot) termCount(t *podTerm) *count {
	return s.matching("term "+t.id, func(pod *corev1.Pod) bool { return t.matches(s, pod) })
}

func (f *podAffinity) cures() Change {
	return NodeCame | NodeLabels | PodCame | PodLeft | PodLabels | NamespaceLabels
}

// movable is false where affinity lacks others: pods that leave bring nobody nearer.
func (f *podAffinity) movable(n *node) bool { return !f.lacksNear(n) }

func (f *podAffinity) adjust(n *node, p *Pod, by int32) {
	add := func(list []termCount, i int) {
		if d := list[i].domain[n.slot]; d >= 0 {
			list[i].counts[d] += by
		}
	}
	if len(f.near) > 0 && f.satisfies(p.Object) {
		for i := range f.near {
			add(f.near, i)
			if f.near[i].domain[n.slot] >= 0 {
				f.found += by
			}
		}
	}
	for i := range f.pod.antiAffinity {
		if t := &f.pod.antiAffinity[i]; t.matches(f.snap, p.Object) {
			add(f.far, f.index(&f.far, t))
		}
	}
	for i := range p.antiAffinity {
		if t := &p.antiAffinity[i]; t.matches(f.snap, f.pod.Object) {
			add(f.forbidden, f.index(&f.forbidden, t))
		}
	}
}

// index returns where list has t, and appends it when there is none so far.
func (f *podAffinity) index(list *[]termCount, t *podTerm) int {
	for i := range *list {
		if (*list)[i].term.id == t.id {
			return i
		}
	}
	topo := f.snap.topology(t.key)
	*list = append(*list, termCount{t, domainCount{topo, make([]int32, len(topo.values))}})
	return len(*list) - 1
}

func (f *podAffinity) lacksNear(n *node) bool {
	first := f.found == 0 && f.self
	for i := range f.near {
		d := &f.near[i]
		if d.domain[n.slot] < 0 || !first && d.at(n) == 0 {
			return true
		}
	}
	return false
}

func anyAt(ds []termCount, n *node) bool {
	for i := range ds {
		if ds[i].at(n) > 0 {
			return true
		}
	}
	return false
}

func (f *podAffinity) allows(n *node) bool {
	return !f.lacksNear(n) && !anyAt(f.far, n) && !anyAt(f.forbidden, n)
}

func (f *podAffinity) reasons(n *node) []string {
	switch {
	case f.lacksNear(n):
		return []string{"node(s) didn't match pod affinity rules"}
	case anyAt(f.far, n):
		return []string{"node(s) didn't match pod anti-affinity rules"}
	default:
		return []string{"node(s) didn't satisfy existing pods anti-affinity rules"}
	}
}

// podAffinityScore adds the weights of preferred terms, the pod's own and those of the pods that are there.
type podAffinityScore struct{ parts []affinityPart }

type affinityPart struct {
	domainCount
	weight int64
}

func (f *podAffinityScore) prepare(s *Snapshot, p *Pod, _ []*node) bool {
	add := func(t *podTerm, c *count, weight int64) {
		if c.total > 0 {
			topo := s.topology(t.key)
			f.parts = append(f.parts, affinityPart{domainCount{topo, s.perDomain(topo, c, nil)}, weight})
		}
	}
	for _, terms := range [][]podTerm{p.preferredAffinity, p.preferredAntiAffinity} {
		for i := range terms {
			add(&terms[i], s.termCount(&terms[i]), terms[i].weight)
		}
	}
	for _, c := range s.carried {
		if !c.forbid && c.term.matches(s, p.Object) {
			add(&c.term, &c.on, c.weight)
		}
	}
	return len(f.parts) > 0
}

func (f *podAffinityScore) score(n *node) (sum int64) {
	for i := range f.parts {
		sum += int64(f.parts[i].at(n)) * f.parts[i].weight
	}
	return sum
}

func (f *podAffinityScore) normalize(scores []int64) {
	least, most := slices.Min(scores), slices.Max(scores)
	for i, v := range scores {
		if most == least {
			scores[i] = 0
		} else {
			scores[i] = maxScore * (v - least) / (most - least)
		}
	}
}
