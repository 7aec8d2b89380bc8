package sched

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	v1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"petrel.dev/petrel/internal/kube"
)

// A filter refuses nodes for one kind of reason.
type filter interface {
	// prepare looks at the pod. It returns false when the filter has nothing to say about it.
	prepare(s *Snapshot, p *Pod) bool
	// allows reports whether the pod may run on n.
	allows(n *node) bool
	// reasons returns why not; it is called only for a node that allows has refused.
	reasons(n *node) []string
	// movable reports whether n, which allows has refused, could take the pod if other pods left it.
	movable(n *node) bool
	// cures returns which changes of the fleet can end a refusal.
	cures() Change
}

// An adjuster is a filter that counts pods of all nodes before it is asked about one.
type adjuster interface {
	// adjust counts a pod that comes to n (by 1) or leaves it (by -1), as if it were so. It is undone by its opposite, and between
	// the two the filter is asked about n alone.
	adjust(n *node, p *Pod, by int32)
}

// settled is for filters whose refusals follow from what the node or the pod is: no pod that leaves can help.
type settled struct{}

func (settled) movable(*node) bool { return false }

// crowded is for filters that refuse because of the pods that are there.
type crowded struct{}

func (crowded) movable(*node) bool { return true }

// activeFilters returns those with something to say, in the order in which a refusal is worth telling: what the node is
// before what it has left.
func (s *Snapshot) activeFilters(p *Pod) []filter {
	all := [...]filter{
		&badPod{}, &unschedulable{}, &nodeName{}, &taints{}, &nodeAffinity{}, &system{}, &architecture{}, &ports{}, &fit{},
		&volumes{}, &topologySpread{}, &podAffinity{},
	}
	var active []filter
	for _, f := range all {
		_, counts := f.(adjuster)
		if f.prepare(s, p) || counts && len(s.nominations) > 0 { // what is nominated may give it something to say
			active = append(active, f)
		}
	}
	return active
}

// badPod refuses a pod whose selectors cannot be understood, instead of guessing.
type badPod struct {
	settled
	err error
}

func (f *badPod) prepare(_ *Snapshot, p *Pod) bool { f.err = p.err; return p.err != nil }
func (f *badPod) allows(*node) bool                { return false }
func (f *badPod) cures() Change                    { return 0 }
func (f *badPod) reasons(*node) []string {
	return []string{fmt.Sprintf("node(s) could not be compared with the pod: %v", f.err)}
}

// tolerates reports whether one of the tolerations is for the taint. The logger is for comparisons of values that are no
// numbers, which validation has refused before.
func tolerates(tolerations []corev1.Toleration, t *corev1.Taint) bool {
	return v1helper.TolerationsTolerateTaint(klog.Logger{}, tolerations, t, false)
}

// unschedulable refuses cordoned nodes.
type unschedulable struct {
	settled
	tolerated bool
}

func (f *unschedulable) prepare(_ *Snapshot, p *Pod) bool {
	f.tolerated = tolerates(p.Object.Spec.Tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	return !f.tolerated
}
func (f *unschedulable) allows(n *node) bool    { return !n.cordoned }
func (f *unschedulable) reasons(*node) []string { return []string{"node(s) were unschedulable"} }
func (f *unschedulable) cures() Change          { return NodeCame | NodeTaints }

// nodeName refuses all nodes but the one that the pod names.
type nodeName struct {
	settled
	want string
}

func (f *nodeName) prepare(_ *Snapshot, p *Pod) bool {
	f.want = p.Object.Spec.NodeName
	return f.want != ""
}
func (f *nodeName) allows(n *node) bool { return n.name == f.want }
func (f *nodeName) cures() Change       { return NodeCame }
func (f *nodeName) reasons(*node) []string {
	return []string{"node(s) didn't match the requested node name"}
}

// taints refuses nodes with a NoSchedule or NoExecute taint that the pod does not tolerate.
type taints struct {
	settled
	tolerations []corev1.Toleration
}

func (f *taints) prepare(_ *Snapshot, p *Pod) bool {
	f.tolerations = p.Object.Spec.Tolerations
	return true
}

func (f *taints) untolerated(n *node) *corev1.Taint {
	for i := range n.hard {
		if !tolerates(f.tolerations, &n.hard[i]) {
			return &n.hard[i]
		}
	}
	return nil
}

func (f *taints) cures() Change       { return NodeCame | NodeTaints }
func (f *taints) allows(n *node) bool { return f.untolerated(n) == nil }
func (f *taints) reasons(n *node) []string {
	t := f.untolerated(n)
	return []string{fmt.Sprintf("node(s) had untolerated taint {%s: %s}", t.Key, t.Value)}
}

// nodeAffinity refuses nodes that the pod's nodeSelector or required node affinity does not select.
type nodeAffinity struct {
	settled
	required nodeaffinity.RequiredNodeAffinity
}

func (f *nodeAffinity) prepare(_ *Snapshot, p *Pod) bool {
	f.required = nodeaffinity.GetRequiredNodeAffinity(p.Object)
	return selectsNodes(p.Object)
}

func selectsNodes(pod *corev1.Pod) bool {
	a := pod.Spec.Affinity
	return len(pod.Spec.NodeSelector) > 0 ||
		a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
}

func (f *nodeAffinity) allows(n *node) bool {
	ok, _ := f.required.Match(n.obj) // a term that cannot be parsed selects nothing
	return ok
}
func (f *nodeAffinity) cures() Change { return NodeCame | NodeLabels }
func (f *nodeAffinity) reasons(*node) []string {
	return []string{"node(s) didn't match Pod's node affinity/selector"}
}

// ports refuses nodes where a host port of the pod is taken.
type ports struct {
	crowded
	want []kube.HostPort
}

func (f *ports) prepare(_ *Snapshot, p *Pod) bool {
	f.want = p.ports
	return len(f.want) > 0
}

func (f *ports) allows(n *node) bool {
	for _, want := range f.want {
		for _, taken := range n.ports {
			if want.Clashes(taken) {
				return false
			}
		}
	}
	return true
}
func (f *ports) cures() Change { return NodeCame | PodLeft }
func (f *ports) reasons(*node) []string {
	return []string{"node(s) didn't have free ports for the requested pod ports"}
}

// fit refuses nodes that have too little left.
type fit struct{ want resources }

func (f *fit) prepare(_ *Snapshot, p *Pod) bool {
	f.want = p.requests
	return true
}

func (f *fit) cures() Change { return NodeCame | NodeRoom | PodLeft }

// movable is false for a node that is too small even when it is empty.
func (f *fit) movable(n *node) bool {
	w, a := &f.want, &n.allocatable
	if n.maxPods < 1 || w.milliCPU > a.milliCPU || w.memory > a.memory || w.ephemeral > a.ephemeral {
		return false
	}
	for name, want := range w.extended {
		if want > a.extended[name] {
			return false
		}
	}
	return true
}

func (f *fit) allows(n *node) bool {
	w := &f.want
	if n.count+1 > n.maxPods ||
		w.milliCPU > 0 && w.milliCPU > n.allocatable.milliCPU-n.used.milliCPU ||
		w.memory > 0 && w.memory > n.allocatable.memory-n.used.memory ||
		w.ephemeral > 0 && w.ephemeral > n.allocatable.ephemeral-n.used.ephemeral {
		return false
	}
	for name, want := range w.extended {
		if want > 0 && want > n.allocatable.extended[name]-n.used.extended[name] {
			return false
		}
	}
	return true
}

func (f *fit) reasons(n *node) (reasons []string) {
	lacks := func(name string, want, left int64) {
		if want > 0 && want > left {
			reasons = append(reasons, "Insufficient "+name)
		}
	}
	if n.count+1 > n.maxPods {
		reasons = append(reasons, "Too many pods")
	}
	lacks("cpu", f.want.milliCPU, n.allocatable.milliCPU-n.used.milliCPU)
	lacks("memory", f.want.memory, n.allocatable.memory-n.used.memory)
	lacks("ephemeral-storage", f.want.ephemeral, n.allocatable.ephemeral-n.used.ephemeral)
	for name, want := range f.want.extended {
		lacks(string(name), want, n.allocatable.extended[name]-n.used.extended[name])
	}
	return reasons
}
