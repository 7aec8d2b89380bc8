package lifecycle

import (
	"fmt"
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
	if len(s.o.NodeIPs) > 0 {
		st.HostIP = s.o.NodeIPs[0]
		for _, ip := range s.o.NodeIPs {
			st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	ips := []string{}
	if s.o.Sandbox != nil {
		ips = s.o.Sandbox.IPs
	} else {
		for _, ip := range last.PodIPs {
			ips = append(ips, ip.IP)
		}
	}
	for i, ip := range ips {
		if i == 0 {
			st.PodIP = ip
		}
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
	}
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
	st.EphemeralContainerStatuses = last.EphemeralContainerStatuses
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
		st.InitContainerStatuses, st.ContainerStatuses = nil, nil // a pod that was refused never had any
	}
	return st
}

// phase is the pod's phase were its status written now.
func (s *stepper) phase() corev1.PodPhase {
	st := s.status()
	return st.Phase
}

// initialised reports whether every init container has done its work, or the others have begun.
func (s *stepper) initialised() bool {
	if s.begun() || Ended(s.o.Last.Phase) && len(s.pendingInit()) == 0 {
		return true
	}
	return len(s.pendingInit()) == 0
}

// pendingInit names the init containers that hold the pod back.
func (s *stepper) pendingInit() []string {
	var names []string
	for _, c := range s.d.Pod.Spec.InitContainers {
		rec := s.current[c.Name]
		switch {
		case rec != nil && s.o.Sandbox != nil && rec.SandboxID != s.o.Sandbox.ID:
			names = append(names, c.Name)
		case rec != nil && kube.IsSidecar(&c) && rec.State == cruntime.Running && s.o.Probes[rec.ID].Started:
		case rec != nil && !kube.IsSidecar(&c) && rec.State == cruntime.Exited && rec.ExitCode == 0 && !rec.Lost:
		default:
			names = append(names, c.Name)
		}
	}
	return names
}

// containerStatus writes one container's status from its newest record, the one before, and why it waits.
func (s *stepper) containerStatus(c corev1.Container, idle string) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(bool)}
	old := kube.ContainerStatusNamed(&s.o.Last, c.Name)
	rec := s.current[c.Name]
	wait, waits := s.waiting[c.Name]
	if rec == nil {
		if old != nil && old.ContainerID != "" { // the runtime has lost it; its last status is all there is
			st.RestartCount, st.ImageID, st.ContainerID = old.RestartCount, old.ImageID, old.ContainerID
			st.LastTerminationState = old.LastTerminationState
			if old.State.Terminated != nil {
				st.LastTerminationState = old.State
			}
			if old.State.Running != nil {
				st.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
					ExitCode: 137, Reason: reasonLocated, StartedAt: old.State.Running.StartedAt,
					Message: "The container could not be located when the pod was terminated", ContainerID: old.ContainerID}
			}
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
	if prev := s.attempt(c.Name, rec.Attempt-1); prev != nil {
		st.LastTerminationState.Terminated = s.terminated(prev)
	} else if old != nil && old.ContainerID == st.ContainerID {
		st.LastTerminationState = old.LastTerminationState
	} else if old != nil && rec.Attempt > 0 && old.State.Terminated != nil {
		st.LastTerminationState = old.State
	} else if old != nil && rec.Attempt > 0 && old.LastTerminationState.Terminated != nil && old.LastTerminationState.Terminated.ContainerID == old.ContainerID {
		st.LastTerminationState = old.LastTerminationState
	}
	switch rec.State {
	case cruntime.Running:
		p := s.o.Probes[rec.ID]
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: kube.Timestamp(rec.StartedAt)}
		*st.Started = p.Started
		// Also while it is being stopped: it serves until it has ended, and its Service wants to know.
		st.Ready = p.Started && p.Ready
		st.Resources = c.Resources.DeepCopy()
		st.AllocatedResources = c.Resources.Requests.DeepCopy()
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

func (s *stepper) isPlainInit(name string) bool {
	for _, c := range s.d.Pod.Spec.InitContainers {
		if c.Name == name {
			return !kube.IsSidecar(&c)
		}
	}
	return false
}

func (s *stepper) attempt(name string, n int) *cruntime.Container {
	for i := range s.o.Containers {
		if c := &s.o.Containers[i]; c.Name == name && c.Attempt == n {
			return c
		}
	}
	return nil
}

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

// phaseOf sums the containers up. The rules are those of the Pod lifecycle page of the Kubernetes documentation.
func (s *stepper) phaseOf(st *corev1.PodStatus) corev1.PodPhase {
	all := s.allRestarter() != nil
	again := func(name string, t *corev1.ContainerStateTerminated) bool {
		c := kube.ContainerNamed(s.d.Pod, name)
		return all || restarts(&s.d.Pod.Spec, c, t.ExitCode, t.Reason != reasonUnseen && t.Reason != reasonLocated)
	}
	pendingInit := false
	for i, c := range s.d.Pod.Spec.InitContainers {
		cs := st.InitContainerStatuses[i]
		if kube.IsSidecar(&c) {
			continue
		}
		t := cs.State.Terminated
		if t == nil || t.ExitCode != 0 {
			if t != nil && !again(c.Name, t) {
				return corev1.PodFailed
			}
			pendingInit = true
		}
	}
	if pendingInit && !s.begun() && !s.d.Deleting() {
		return corev1.PodPending
	}
	var waiting, running, stopped, good, restarting int
	for _, cs := range st.ContainerStatuses {
		switch {
		case cs.State.Running != nil:
			running++
		case cs.State.Terminated != nil:
			stopped++
			if cs.State.Terminated.ExitCode == 0 {
				good++
			}
			if again(cs.Name, cs.State.Terminated) {
				restarting++
			}
		case cs.LastTerminationState.Terminated != nil:
			stopped++
			// After RestartAllContainers there are no records, and the one that asked may not be among these.
			if again(cs.Name, cs.LastTerminationState.Terminated) || s.current[cs.Name] == nil && mayRestartAll(&s.d.Pod.Spec) {
				restarting++
			}
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0 && s.d.Deleting() && s.out.State >= Stopped: // never came to run, and never will
		return corev1.PodFailed
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case s.d.Deleting() && stopped == good:
		return corev1.PodSucceeded
	case s.d.Deleting():
		return corev1.PodFailed
	case restarting > 0:
		return corev1.PodRunning
	case stopped == good:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// conditions fills in the pod's conditions; those of others (scheduler, readiness gates) pass through.
func (s *stepper) conditions(st *corev1.PodStatus, initialised bool) {
	set := func(kind corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			ObservedGeneration: s.d.Pod.Generation, LastTransitionTime: kube.Timestamp(s.now)}
		if ok {
			c.Status = corev1.ConditionTrue
			if kind != corev1.AllContainersRestarting { // reason and message of the others are why not
				c.Message = ""
				if reason != "PodCompleted" {
					c.Reason = ""
				}
			}
		}
		kube.KeepTransition(s.o.Last.Conditions, &c)
		st.Conditions = append(st.Conditions, c)
	}
	done := st.Phase == corev1.PodSucceeded
	set(corev1.PodReadyToStartContainers, s.o.Sandbox != nil, "", "")
	if done {
		set(corev1.PodInitialized, true, "PodCompleted", "")
	} else {
		set(corev1.PodInitialized, initialised, "ContainersNotInitialized",
			fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(s.pendingInit(), " ")))
	}
	var unready []string
	for i, c := range s.d.Pod.Spec.InitContainers {
		if kube.IsSidecar(&c) && !st.InitContainerStatuses[i].Ready {
			unready = append(unready, c.Name)
		}
	}
	for _, cs := range st.ContainerStatuses {
		if !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	reason, message := "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	switch {
	case done:
		reason, message = "PodCompleted", ""
	case st.Phase == corev1.PodFailed:
		reason, message = "PodFailed", ""
	}
	ready := len(unready) == 0 && initialised && !Ended(st.Phase)
	gates := s.gates()
	setReady := func() {
		if ready && gates != "" {
			set(corev1.PodReady, false, "ReadinessGatesNotReady", gates)
			return
		}
		set(corev1.PodReady, ready, reason, message)
	}
	setReady()
	set(corev1.ContainersReady, ready, reason, message)
	if mayRestartAll(&s.d.Pod.Spec) {
		switch by := s.allRestarter(); {
		case st.Phase == corev1.PodFailed:
			set(corev1.AllContainersRestarting, false, "PodFailed", "")
		case by != nil && !Ended(st.Phase):
			set(corev1.AllContainersRestarting, true, "RestartAllContainersStarted", "container exited with restart policy rule")
		default:
			set(corev1.AllContainersRestarting, false, "", "")
		}
	}
	if c := s.disruption(st); c != nil {
		st.Conditions = append(st.Conditions, *c)
	}
	for _, c := range s.d.Pod.Status.Conditions {
		if kube.FindCondition(st.Conditions, c.Type) == nil {
			st.Conditions = append(st.Conditions, c)
		}
	}
	if kube.FindCondition(st.Conditions, corev1.PodScheduled) == nil {
		set(corev1.PodScheduled, true, "", "")
	}
}

// gates returns why readiness gates are not fulfilled; empty: all are.
func (s *stepper) gates() string {
	var missing []string
	for _, g := range s.d.Pod.Spec.ReadinessGates {
		c := kube.FindCondition(s.d.Pod.Status.Conditions, g.ConditionType)
		switch {
		case c == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(g.ConditionType)))
		case c.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", string(g.ConditionType), c.Status))
		}
	}
	return strings.Join(missing, ", ")
}
