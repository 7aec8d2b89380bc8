package sched

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// NodeRules are what a pod's spec asks of a node as such, whatever else runs there. A controller that places a pod on each
// node asks them, so that it expects what the filters decide.
type NodeRules struct {
	nodeName    string // "": any
	required    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration // shared with the pod
}

// RulesOf returns the rules of a pod that does not change while they are used.
func RulesOf(p *corev1.Pod) NodeRules {
	return NodeRules{nodeName: p.Spec.NodeName, required: nodeaffinity.GetRequiredNodeAffinity(p), tolerations: p.Spec.Tolerations}
}

// Admit reports whether the pod may be bound to n, and whether it may stay when it runs there already: a NoSchedule taint
// stops the first alone. A cordon counts as the taint that comes with it.
func (r *NodeRules) Admit(n *corev1.Node) (bind, stay bool) {
	if r.nodeName != "" && r.nodeName != n.Name {
		return false, false
	}
	if ok, _ := r.required.Match(n); !ok { // a term that cannot be parsed selects nothing
		return false, false
	}
	bind, stay = true, true
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		hard := t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
		if !hard || tolerates(r.tolerations, t) {
			continue
		}
		bind = false
		stay = stay && t.Effect != corev1.TaintEffectNoExecute
	}
	return bind, stay
}

// ImageRules are what a pod's images ask of a node: to exist for its architecture.
type ImageRules struct{ filter architecture }

// ImageRulesOf returns the rules of a pod's images. known returns for which architectures an image exists, and none when that is not known.
func ImageRulesOf(p *corev1.Pod, known func(image string) []string) ImageRules {
	r := ImageRules{architecture{images: map[string][]string{}, pod: NewPod(p)}}
	for _, image := range r.filter.pod.images {
		r.filter.images[image] = known(image)
	}
	return r
}

// Missing returns the first image that does not exist for obj, for which the scheduler refuses that node; "" when there is none.
func (r *ImageRules) Missing(obj *corev1.Node) string {
	n := &node{}
	n.arch, n.variant = archOf(obj)
	return r.filter.missing(n)
}
