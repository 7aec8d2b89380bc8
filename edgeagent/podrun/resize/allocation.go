// Package resize decides which resources the pods of a node have, when their specs ask for others than they were let in with. It is
// pure: plain values in, plain values out.
//
// What a pod's spec asks for is not yet what it has. The node allocates it when there is room; until then the allocation of before
// stays, and the resize is Deferred. More than the whole node has is Infeasible. The rules and texts are kubelet's.
package resize

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Allocation is what a node has allocated to a pod and its containers. The zero value is none. It is immutable.
type Allocation struct {
	pod        *corev1.ResourceRequirements // of the pod as a whole
	containers map[string]corev1.ResourceRequirements
}

// Of returns the allocation that a pod's spec asks for.
func Of(pod *corev1.Pod) Allocation {
	a := Allocation{pod: pod.Spec.Resources, containers: map[string]corev1.ResourceRequirements{}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			a.containers[list[i].Name] = list[i].Resources
		}
	}
	return a
}

// None reports whether nothing has been allocated yet.
func (a Allocation) None() bool { return a.containers == nil }

// In returns the pod with the allocation in place of what its spec asks for: the pod itself where both are the same.
func (a Allocation) In(pod *corev1.Pod) *corev1.Pod {
	if a.None() || a.same(pod) {
		return pod
	}
	out := *pod // containers are copied below; nothing else changes
	out.Spec.Resources = a.pod
	out.Spec.InitContainers, out.Spec.Containers = a.in(pod.Spec.InitContainers), a.in(pod.Spec.Containers)
	return &out
}

func (a Allocation) same(pod *corev1.Pod) bool {
	want := Of(pod)
	return equality.Semantic.DeepEqual(a.pod, want.pod) && equality.Semantic.DeepEqual(a.containers, want.containers)
}

func (a Allocation) in(list []corev1.Container) []corev1.Container {
	if list == nil {
		return nil
	}
	out := make([]corev1.Container, len(list))
	for i := range list {
		out[i] = list[i]
		if r, ok := a.containers[out[i].Name]; ok {
			out[i].Resources = r
		}
	}
	return out
}

// Amount is CPU in thousandths, and memory in bytes.
type Amount struct{ CPU, Memory int64 }

// AmountOf returns what of CPU and memory is in a list.
func AmountOf(list corev1.ResourceList) Amount {
	return Amount{list.Cpu().MilliValue(), list.Memory().Value()}
}

// Claim is what one pod of the node has, and what it wants.
type Claim struct {
	UID        string
	Has, Wants Amount
	Pending    bool // it wants something else than it has
	Priority   int32
	Guaranteed bool  // its QoS class
	Since      int64 // when its resize was deferred, in seconds; 0: not yet
}

// grows reports whether a pod wants more of anything.
func (c *Claim) grows() bool { return c.Wants.CPU > c.Has.CPU || c.Wants.Memory > c.Has.Memory }

// before orders pending claims: those that take no more than they have, then by priority, QoS class and waiting time.
func before(a, b Claim) int {
	first := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	}
	return cmp.Or(first(!a.grows(), !b.grows()), cmp.Compare(b.Priority, a.Priority), first(a.Guaranteed, b.Guaranteed),
		first(a.Since != 0, b.Since != 0), cmp.Compare(a.Since, b.Since), cmp.Compare(a.UID, b.UID))
}
