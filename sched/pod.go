package sched

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	helper "k8s.io/component-helpers/resource"
	v1helper "k8s.io/component-helpers/scheduling/corev1"

	"petrel.dev/petrel/internal/kube"
)

// Pod is a pod with all that scheduling asks of it worked out once. It does not change; the object it was made of must
// not either.
type Pod struct {
	Object *corev1.Pod

	priority int32
	leaving  bool  // it is being deleted
	started  int64 // in nanoseconds since 1970; the largest number when it has not
	requests resources
	// scored is requests with a small assumption for what has none, so that pods without requests spread too.
	scored resources
	ports  []kube.HostPort
	owner  types.UID // of its controller
	images []string  // of its containers
	claims []string  // keys of its PersistentVolumeClaims; most pods have none
	// mounted are images that are volumes. What machines they are for is no matter: nothing runs in them.
	mounted []string
	// architectures, when its owner says so, are those that all images exist for; nil: what is known of each image counts.
	architectures []string

	affinity, antiAffinity                   []podTerm // required
	preferredAffinity, preferredAntiAffinity []podTerm
	spread                                   []spreadConstraint
	err                                      error // a selector that cannot be understood
}

// assumed is what a container is taken to use of what it says nothing about, for scoring only; the numbers are Kubernetes'.
var assumed = corev1.ResourceList{
	corev1.ResourceCPU:    *resource.NewMilliQuantity(assumedMilliCPU, resource.DecimalSI),
	corev1.ResourceMemory: *resource.NewQuantity(assumedMemory, resource.BinarySI),
}

const (
	assumedMilliCPU = 100
	assumedMemory   = 200 << 20
)

// scoredRequests returns the pod's requests with what is assumed of containers that leave them open.
func scoredRequests(pod *corev1.Pod, requests resources) resources {
	simple := len(pod.Spec.InitContainers) == 0 && pod.Spec.Resources == nil
	cpu, memory := int64(0), int64(0) // containers that leave it open
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if _, ok := list[i].Resources.Requests[corev1.ResourceCPU]; !ok {
				cpu++
			}
			if _, ok := list[i].Resources.Requests[corev1.ResourceMemory]; !ok {
				memory++
			}
		}
	}
	switch {
	case cpu+memory == 0:
	case simple: // nearly all pods, for which upstream's helper would do no more than this
		requests.milliCPU += cpu * assumedMilliCPU
		requests.memory += memory * assumedMemory
	default:
		return resourcesOf(helper.PodRequests(pod, helper.PodResourcesOptions{UseStatusResources: true, NonMissingContainerRequests: assumed}))
	}
	return requests
}

// NewPod prepares a pod.
func NewPod(pod *corev1.Pod) *Pod {
	p := &Pod{Object: pod, priority: v1helper.PodPriority(pod), leaving: pod.DeletionTimestamp != nil, started: math.MaxInt64}
	if t := pod.Status.StartTime; t != nil {
		p.started = t.UnixNano()
	}
	p.requests = resourcesOf(kube.PodRequests(pod))
	p.scored = scoredRequests(pod, p.requests)
	for _, cs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range cs {
			if c.Image != "" {
				p.images = append(p.images, c.Image)
			}
		}
	}
	for i := range pod.Spec.Volumes {
		if v := pod.Spec.Volumes[i].Image; v != nil {
			p.mounted = append(p.mounted, v.Reference)
		}
	}
	p.architectures = annotated(pod)
	p.ports = kube.HostPorts(&pod.Spec)
	p.claims = kube.ClaimKeys(pod)
	if ref := metav1.GetControllerOf(pod); ref != nil {
		p.owner = ref.UID
	}
	p.prepareTerms()
	p.prepareSpread()
	return p
}

// NeedsLess reports whether p needs less of something than an older version of it.
func (p *Pod) NeedsLess(old *Pod) bool {
	a, b := &p.requests, &old.requests
	if a.milliCPU < b.milliCPU || a.memory < b.memory || a.ephemeral < b.ephemeral {
		return true
	}
	for name, n := range b.extended {
		if a.extended[name] < n {
			return true
		}
	}
	return false
}

// resources is an amount of everything that nodes have. The zero value is nothing.
type resources struct {
	milliCPU, memory, ephemeral int64
	extended                    map[corev1.ResourceName]int64
}

func resourcesOf(list corev1.ResourceList) resources {
	var r resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.milliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = q.Value()
		case corev1.ResourcePods:
		default:
			if r.extended == nil {
				r.extended = map[corev1.ResourceName]int64{}
			}
			r.extended[name] = q.Value()
		}
	}
	return r
}

// add adds sign times o.
func (r *resources) add(o resources, sign int64) {
	r.milliCPU += sign * o.milliCPU
	r.memory += sign * o.memory
	r.ephemeral += sign * o.ephemeral
	if len(o.extended) > 0 && r.extended == nil {
		r.extended = map[corev1.ResourceName]int64{}
	}
	for name, n := range o.extended {
		r.extended[name] += sign * n
	}
}

// selectorOf is a label selector of a pod's own spec, with the pod's values for keys added. A nil selector selects
// nothing.
func selectorOf(sel *metav1.LabelSelector, pod *corev1.Pod, match, mismatch []string) (labels.Selector, error) {
	if sel != nil && len(match)+len(mismatch) > 0 {
		sel = sel.DeepCopy()
		with := func(keys []string, op metav1.LabelSelectorOperator) {
			for _, k := range keys {
				if v, ok := pod.Labels[k]; ok {
					sel.MatchExpressions = append(sel.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
				}
			}
		}
		with(match, metav1.LabelSelectorOpIn)
		with(mismatch, metav1.LabelSelectorOpNotIn)
	}
	return metav1.LabelSelectorAsSelector(sel)
}
