package lifecycle

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

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

// phaseOf sums the containers up. The rules are those of the Pod lifecycle page of the Kubernetes documentation.
func (s *stepper) phaseOf(st *corev1.PodStatus) corev1.PodPhase {
	all := s.allRestarter() != nil
	again := func(name string, t *corev1.ContainerStateTerminated) bool {
		c, rec := kube.ContainerNamed(s.d.Pod, name), s.current[name]
		return all || rec != nil && s.o.Again[rec.ID] != ByPolicy || restarts(&s.d.Pod.Spec, c, t.ExitCode, t.Reason != reasonUnseen && t.Reason != reasonLocated)
	}
	pendingInit := false
	for i, c := range s.d.Pod.Spec.InitContainers {
		if kube.IsSidecar(&c) {
			continue
		}
		t := st.InitContainerStatuses[i].State.Terminated
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
