package lifecycle

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

// status writes the pod's status as kubelet does: the container statuses from the records, the phase from those, the
// conditions from both, and each transition time kept while its condition does not change.
func (s *stepper) status() corev1.PodStatus {
	pod, last := s.d.Pod, &s.o.Last
	st := corev1.PodStatus{
		ObservedGeneration: pod.Generation,
		QOSClass:           kube.QOS(pod),
		StartTime:          last.StartTime,
		NominatedNodeName:  pod.Status.NominatedNodeName,
	}
	if st.StartTime == nil {
		t := kube.Timestamp(s.now)
		st.StartTime = &t
	}
	s.addresses(&st)
	s.podResources(&st)
	initialised := s.initialised()
	for _, c := range pod.Spec.InitContainers {
		st.InitContainerStatuses = append(st.InitContainerStatuses, s.containerStatus(c, "PodInitializing"))
	}
	reason := "ContainerCreating"
	if len(pod.Spec.InitContainers) > 0 && !initialised {
		reason = "PodInitializing"
	}
	for _, c := range pod.Spec.Containers {
		st.ContainerStatuses = append(st.ContainerStatuses, s.containerStatus(c, reason))
	}
	for i := range pod.Spec.EphemeralContainers {
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses,
			s.ephemeralStatus(corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon), reason))
	}
	slices.SortFunc(st.ContainerStatuses, func(a, b corev1.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
	st.Phase = s.phaseOf(&st)
	switch {
	case Ended(last.Phase):
		st.Phase, st.Reason, st.Message = last.Phase, last.Reason, last.Message
	case s.o.Rejected.Reason != "":
		st.Phase, st.Reason, st.Message = corev1.PodFailed, s.o.Rejected.Reason, "Pod was rejected: "+s.o.Rejected.Message
	case !s.d.Deleting() && s.o.Evict.Message != "":
		st.Phase, st.Reason, st.Message = corev1.PodFailed, ReasonEvicted, s.o.Evict.Message
	case !s.d.Deleting() && s.overDeadline():
		st.Phase, st.Reason, st.Message = corev1.PodFailed, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
	}
	s.conditions(&st, initialised)
	if s.o.Rejected.Reason != "" || Ended(last.Phase) && len(last.ContainerStatuses) == 0 && len(s.o.Containers) == 0 {
		st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses = nil, nil, nil // a pod that was refused never had any
	}
	return st
}

// addresses fills in where the node and the pod are. A pod that has given its sandbox back keeps its last addresses.
func (s *stepper) addresses(st *corev1.PodStatus) {
	for i, ip := range s.o.NodeIPs {
		if i == 0 {
			st.HostIP = ip
		}
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
	}
	if s.o.Sandbox == nil {
		if st.PodIPs = s.o.Last.PodIPs; len(st.PodIPs) > 0 {
			st.PodIP = st.PodIPs[0].IP
		}
		return
	}
	for i, ip := range s.o.Sandbox.IPs {
		if i == 0 {
			st.PodIP = ip
		}
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
	}
}

// containerStatus writes one container's status from its newest record, the one before, and why it waits.
func (s *stepper) containerStatus(c corev1.Container, idle string) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(bool)}
	old := kube.ContainerStatusNamed(&s.o.Last, c.Name)
	rec := s.current[c.Name]
	wait, waits := s.waiting[c.Name]
	if rec == nil {
		if old != nil && old.ContainerID != "" {
			s.lost(&st, old)
			if (Ended(s.o.Last.Phase) || s.d.Deleting()) && st.LastTerminationState.Terminated != nil {
				st.State, st.LastTerminationState = st.LastTerminationState, corev1.ContainerState{}
				return st
			}
		}
		if !waits {
			wait.Reason = idle
		}
		st.State.Waiting = &wait
		return st
	}
	st.RestartCount = int32(rec.Attempt)
	st.ImageID, st.ContainerID = rec.ImageID, "containerd://"+rec.ID
	if rec.Image != "" {
		st.Image = rec.Image
	}
	st.LastTerminationState = s.lastEnd(rec, old)
	st.AllocatedResources, st.Resources = c.Resources.Requests.DeepCopy(), s.resources(rec, &c)
	switch rec.State {
	case cruntime.Running:
		p := s.o.Probes[rec.ID]
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: kube.Timestamp(rec.StartedAt)}
		*st.Started = p.Started
		// Also while it is being stopped: it serves until it has ended, and its Service wants to know.
		st.Ready = p.Started && p.Ready
	case cruntime.Exited:
		if waits && !Ended(s.o.Last.Phase) {
			st.State.Waiting = &wait
			st.LastTerminationState.Terminated = s.terminated(rec)
		} else {
			st.State.Terminated = s.terminated(rec)
		}
		// A finished init container counts as ready, as kubelet has it.
		st.Ready = s.isPlainInit(c.Name) && rec.ExitCode == 0 && !rec.Lost
	default:
		if !waits {
			wait.Reason = idle
		}
		st.State.Waiting = &wait
	}
	return st
}

// lost fills in the status of a container that has run, and of which the runtime has no record any more: its last status is all
// that is known.
func (s *stepper) lost(st, old *corev1.ContainerStatus) {
	st.RestartCount, st.ImageID, st.ContainerID = old.RestartCount, old.ImageID, old.ContainerID
	st.LastTerminationState = old.LastTerminationState
	if old.State.Terminated != nil {
		st.LastTerminationState = old.State
	}
	if old.State.Running != nil {
		st.LastTerminationState.Terminated = located(old)
	}
}

// located is the end of a container that was seen running, and of which the runtime has no record any more.
func located(old *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: 137, Reason: reasonLocated, StartedAt: old.State.Running.StartedAt,
		Message: "The container could not be located when the pod was terminated", ContainerID: old.ContainerID}
}

// lastEnd returns how the attempt before a container's newest has ended: from its record, or else from the last status.
func (s *stepper) lastEnd(rec *cruntime.Container, old *corev1.ContainerStatus) (last corev1.ContainerState) {
	switch prev := s.attempt(rec.Name, rec.Attempt-1); {
	case prev != nil:
		last.Terminated = s.terminated(prev)
	case old == nil:
	case old.ContainerID == "containerd://"+rec.ID:
		return old.LastTerminationState
	case rec.Attempt == 0:
	case old.State.Terminated != nil:
		return old.State
	case old.LastTerminationState.Terminated != nil && old.LastTerminationState.Terminated.ContainerID == old.ContainerID:
		return old.LastTerminationState
	}
	return last
}

// isPlainInit reports whether a container is an init container that runs before the others.
func (s *stepper) isPlainInit(name string) bool {
	for _, c := range s.d.Pod.Spec.InitContainers {
		if c.Name == name {
			return !kube.IsSidecar(&c)
		}
	}
	return false
}

// attempt returns the record of a container's n-th attempt, or nil.
func (s *stepper) attempt(name string, n int) *cruntime.Container {
	for i := range s.o.Containers {
		if c := &s.o.Containers[i]; c.Name == name && c.Attempt == n {
			return c
		}
	}
	return nil
}

// terminated is how a record's container has ended, with kubelet's reasons.
func (s *stepper) terminated(c *cruntime.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: endCode(c), Reason: "Completed", Message: s.o.Messages[c.ID],
		StartedAt: kube.Timestamp(c.StartedAt), FinishedAt: kube.Timestamp(c.FinishedAt), ContainerID: "containerd://" + c.ID,
	}
	switch {
	case c.StartError != "":
		t.Reason, t.Message = "StartError", c.StartError
	case c.Lost: // as kubelet and containerd have it for a container that was cut off
		t.Reason = reasonUnseen
	case c.OOMKilled:
		t.Reason = "OOMKilled"
	case c.ExitCode != 0:
		t.Reason = "Error"
	}
	return t
}

// Reasons of containers whose end was not observed: cut off, or lost by the runtime.
const (
	reasonUnseen  = "Unknown"
	reasonLocated = "ContainerStatusUnknown"
)
