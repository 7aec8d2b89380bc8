package lifecycle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

// Ephemeral containers are added to a pod while it runs. Each runs once: neither its end, nor that of its sandbox, nor a lost record
// starts it again. They count for neither the pod's phase nor its readiness, and end with the pod.

// startEphemeral starts the ephemeral containers that have not run yet, whether or not the pod is initialised.
func (s *stepper) startEphemeral() {
	for i := range s.d.Pod.Spec.EphemeralContainers {
		e := &s.d.Pod.Spec.EphemeralContainers[i]
		c, rec := corev1.Container(e.EphemeralContainerCommon), s.current[e.Name]
		if rec != nil && rec.State == cruntime.Running && s.inSandbox(e.Name) == nil && s.o.Stops[rec.ID].IsZero() {
			s.stop(rec, c, nil, ByPolicy, fmt.Sprintf("Container %s belongs to an earlier sandbox", e.Name))
		}
		if rec != nil && rec.State != cruntime.Created || rec == nil && s.hasRun(e.Name) != nil {
			continue
		}
		if e.TargetContainerName != "" && s.target(e.Name) == "" { // the end of this wait is an event of the runtime
			s.wait(e.Name, ReasonConfig, fmt.Sprintf("unable to find target container %v: it does not run", e.TargetContainerName))
			continue
		}
		attempt := 0
		if rec != nil {
			attempt = rec.Attempt
			if s.inSandbox(e.Name) == nil { // made, but never started, before a reboot
				attempt++
			}
		}
		s.start(c, attempt, Backoff{})
	}
}

// target returns the ID of the container whose process namespace an ephemeral container is to join; empty: none, or it does not run.
func (s *stepper) target(name string) string {
	e := kube.EphemeralContainerNamed(s.d.Pod, name)
	if e == nil || e.TargetContainerName == "" {
		return ""
	}
	if rec := s.inSandbox(e.TargetContainerName); rec != nil && rec.State == cruntime.Running {
		return rec.ID
	}
	return ""
}

// hasRun returns the last status of an ephemeral container if that shows that it has run, else nil.
func (s *stepper) hasRun(name string) *corev1.ContainerStatus {
	old := kube.ContainerStatusNamed(&s.o.Last, name)
	if old == nil || old.State.Running == nil && old.State.Terminated == nil {
		return nil
	}
	return old
}

// ephemeralStatus writes the status of an ephemeral container. It is never ready, and neither started nor not: it has no probes.
func (s *stepper) ephemeralStatus(c corev1.Container, idle string) corev1.ContainerStatus {
	var st corev1.ContainerStatus
	if old := s.hasRun(c.Name); old != nil && s.current[c.Name] == nil { // its record is gone, and it does not come back
		st = *old.DeepCopy()
		if run := st.State.Running; run != nil {
			st.State = corev1.ContainerState{Terminated: located(old)}
		}
	} else {
		st = s.containerStatus(c, idle)
	}
	st.Ready, st.Started = false, nil
	return st
}
