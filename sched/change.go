package sched

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Change is a set of kinds of changes of a fleet. A refusal names those that can end it, so that a pod that fits nowhere is not
// tried again after all others.
type Change uint32

// The kinds of changes.
const (
	NodeCame        Change = 1 << iota // a node is new
	NodeGone                           // a node is deleted
	NodeLabels                         // its labels or its architecture
	NodeTaints                         // its taints or its cordon
	NodeRoom                           // what it has to allocate
	PodCame                            // a pod has got a node
	PodLeft                            // a pod has ended, is gone, or is on its way: it leaves room, ports, and its domain
	PodLabels                          // labels of a pod that has a node
	NamespaceLabels                    // a namespace, or its labels
	ImageSeen                          // what is known of an image
	Volumes                            // claims, volumes or classes; a pod with claims has left
)

// OfNode are the changes whose help depends on the one node where they happen: Admits shows whether there is any.
const OfNode = NodeCame | NodeLabels | NodeTaints | NodeRoom | PodLeft

// NodeChange returns what an update of a node means for placement: nothing, if it is a condition as usual.
func NodeChange(old, now *corev1.Node) (what Change) {
	if old.UID != now.UID {
		return NodeCame
	}
	if !maps.Equal(old.Labels, now.Labels) || old.Status.NodeInfo.Architecture != now.Status.NodeInfo.Architecture {
		what |= NodeLabels
	}
	if old.Spec.Unschedulable != now.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
		what |= NodeTaints
	}
	if !equality.Semantic.DeepEqual(old.Status.Allocatable, now.Status.Allocatable) {
		what |= NodeRoom
	}
	return what
}
