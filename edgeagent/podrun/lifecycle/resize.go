package lifecycle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// A pod is resized in two steps, as kubelet does it. The node first allocates what the pod's spec asks for, when there is room; until
// then the spec is pending and Target.Pod has the resources of before. Then containers are brought to what is allocated: in place, or
// by a restart where their resizePolicy says so.
//
// The kernel wants a pod to have no less than each of its containers. So the pod's own limits only grow at first, and shrink when
// every container has what it should.

// resized names the running containers that have other resources than are allocated to them.
type resized struct {
	inPlace []string // changed while they run
	restart []string // stopped, to be started again with the new ones
}

func (r resized) any() bool { return len(r.inPlace)+len(r.restart) > 0 }

// differing compares what running containers have with what they should have.
func (s *stepper) differing() (out resized) {
	pod := s.d.Pod
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		rec := s.current[c.Name]
		if rec == nil || rec.State != cruntime.Running || rec.Hash != podspec.Hash(c) {
			continue // started, or started again, with what is allocated
		}
		have, known := podspec.ParseShare(rec.Share)
		names := have.Differs(podspec.ShareOf(pod, &c))
		switch {
		case len(names) == 0:
		case known && restartsFor(&c, names), !s.o.Stops[rec.ID].IsZero():
			out.restart = append(out.restart, c.Name)
		default:
			out.inPlace = append(out.inPlace, c.Name)
		}
	}
	return out
}

// restartsFor reports whether a container wants to be started again when one of the resources changes.
func restartsFor(c *corev1.Container, names []corev1.ResourceName) bool {
	return slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
		return p.RestartPolicy == corev1.RestartContainer && slices.Contains(names, p.ResourceName)
	})
}

// resize gives the pod and its containers what is allocated to them, unless that has failed a moment ago.
func (s *stepper) resize() {
	want := Bounds{Text: podspec.BoundsText(s.d.Pod), Settled: len(s.resized.restart) == 0}
	if len(s.resized.inPlace) == 0 && (s.o.Resize.Bounds == want || s.o.Resize.Bounds == Bounds{want.Text, true}) {
		return
	}
	if retry := s.o.Resize.Fail.Retry; s.now.Before(retry) {
		s.at(retry)
		return
	}
	s.do(Action{Kind: ResizePod, Resize: s.resized.inPlace, Bounds: want})
}

// resources returns the resources that a container has: those that it was last given while it runs, and otherwise those that the next
// attempt will get.
func (s *stepper) resources(rec *cruntime.Container, c *corev1.Container) *corev1.ResourceRequirements {
	if have, known := podspec.ParseShare(rec.Share); known && rec.State == cruntime.Running {
		return new(have.In(c.Resources))
	}
	return c.Resources.DeepCopy()
}

// podResources fills in what is allocated to a pod that asks for resources as a whole, and what it has.
func (s *stepper) podResources(st *corev1.PodStatus) {
	own := s.d.Pod.Spec.Resources
	if own == nil {
		return
	}
	st.AllocatedResources = own.Requests.DeepCopy()
	if st.Resources = own.DeepCopy(); s.podDiffers() && s.o.Last.Resources != nil {
		st.Resources = s.o.Last.Resources
	}
}

// podDiffers reports whether the pod as a whole has other resources than are allocated to it.
func (s *stepper) podDiffers() bool {
	have := s.o.Resize.Bounds.Text
	return s.d.Pod.Spec.Resources != nil && have != "" && have != podspec.BoundsText(s.d.Pod)
}

// unsettled reports whether the pod's own limits are still larger than they should be, for containers that had more.
func (s *stepper) unsettled() bool {
	have := s.o.Resize.Bounds
	return !have.Settled && have.Text == podspec.BoundsText(s.d.Pod)
}

// resizeConditions adds the conditions by which clients see a resize that is not done. There are none on a pod that has ended.
func (s *stepper) resizeConditions(st *corev1.PodStatus) {
	if Ended(st.Phase) {
		return
	}
	add := func(kind corev1.PodConditionType, reason, message string, generation int64) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message,
			ObservedGeneration: generation, LastTransitionTime: kube.Timestamp(s.now)}
		if old := kube.FindCondition(s.o.Last.Conditions, kind); old != nil && old.Reason == reason {
			kube.KeepTransition(s.o.Last.Conditions, &c) // another reason is a transition too, as upstream has it
		}
		st.Conditions = kube.SetCondition(st.Conditions, c)
	}
	r := &s.o.Resize
	if r.Pending.Reason != "" {
		add(corev1.PodResizePending, r.Pending.Reason, r.Pending.Message, s.d.Pod.Generation)
	}
	if !s.resized.any() && !s.podDiffers() && !s.unsettled() {
		return
	}
	generation := r.Generation
	if old := kube.FindCondition(s.o.Last.Conditions, corev1.PodResizeInProgress); generation == 0 && old != nil {
		generation = old.ObservedGeneration
	}
	if generation == 0 {
		generation = s.d.Pod.Generation
	}
	add(corev1.PodResizeInProgress, r.Fail.Reason, r.Fail.Message, generation)
}
