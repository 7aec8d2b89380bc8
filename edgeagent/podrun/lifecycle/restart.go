package lifecycle

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// What becomes of a container that has ended is asked in kubelet's order: its restartPolicyRules, its own restartPolicy,
// its pod's.

// Exit codes of containers that have none of their own, as kubelet and containerd write them.
const (
	exitLost       = 255 // ended unseen
	exitStartError = 128
)

// endCode is the exit code that a container's status shows.
func endCode(c *cruntime.Container) int32 {
	switch {
	case c.StartError != "":
		return exitStartError
	case c.Lost:
		return exitLost
	}
	return int32(c.ExitCode)
}

// restarts reports whether a container that ended with a code runs again. seen is false when its end was not observed: then
// there is no exit code to which its rules could be put.
func restarts(pod *corev1.PodSpec, c *corev1.Container, code int32, seen bool) bool {
	policy := pod.RestartPolicy
	if c.RestartPolicy != nil {
		if r := matchingRule(c, code); seen && r != nil &&
			(r.Action == corev1.ContainerRestartRuleActionRestart || r.Action == corev1.ContainerRestartRuleActionRestartAllContainers) {
			return true
		}
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// restartsKilled reports whether a container that the node itself ends, for a failed probe, is meant to run again.
func restartsKilled(pod *corev1.PodSpec, c *corev1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy != corev1.ContainerRestartPolicyNever
	}
	return pod.RestartPolicy != corev1.RestartPolicyNever
}

// matchingRule is the first of a container's rules that an exit code matches, or nil.
func matchingRule(c *corev1.Container, code int32) *corev1.ContainerRestartRule {
	for i := range c.RestartPolicyRules {
		r := &c.RestartPolicyRules[i]
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn && in ||
			r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn && !in {
			return r
		}
	}
	return nil
}

// mayRestartAll reports whether a container's end may restart the whole pod.
func mayRestartAll(pod *corev1.PodSpec) bool {
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, r := range c.RestartPolicyRules {
			if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
				return true
			}
		}
	}
	return false
}

// allRestarter is the container whose end asks for a restart of the whole pod, or nil.
func (s *stepper) allRestarter() *cruntime.Container {
	for _, c := range slices.Concat(s.d.Pod.Spec.InitContainers, s.d.Pod.Spec.Containers) {
		rec := s.current[c.Name]
		if rec == nil || rec.State != cruntime.Exited || rec.Lost || s.o.Again[rec.ID] == Renewed {
			continue
		}
		if r := matchingRule(&c, endCode(rec)); r != nil && r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
			return rec
		}
	}
	return nil
}

// restartAll carries out the rule RestartAllContainers in the sandbox that is there: it ends every container at once,
// waits for as long as the one that asked has to, and forgets all of them, that one last, so that being cut off in
// between changes nothing. The pod then begins as it did first; counts and last states come from its last status.
func (s *stepper) restartAll() bool {
	by := s.allRestarter()
	if by == nil {
		return false
	}
	s.out.State = PodRunning
	running := false
	for i := range s.o.Containers {
		c := &s.o.Containers[i]
		if c.State != cruntime.Running {
			continue
		}
		running = true
		if end := s.o.Stops[c.ID]; end.IsZero() || end.After(s.now) {
			s.do(Action{Kind: StopContainer, Container: c.Name, ID: c.ID,
				Why: fmt.Sprintf("Container %s will be restarted with all of its pod, because container %s has ended with %d", c.Name, by.Name, endCode(by))})
		}
	}
	if running {
		return true
	}
	b := s.o.Backoffs[by.Name]
	if until := b.until(by.FinishedAt, s.now); s.now.Before(until) {
		s.waitBackOff(by.Name, b)
		s.at(until)
		return true
	}
	if len(s.o.Containers) == 1 {
		s.do(Action{Kind: RemoveContainer, Container: by.Name, ID: by.ID, Attempt: by.Attempt, Backoff: b.next(by.FinishedAt, s.now)})
		return true
	}
	for i := range s.o.Containers {
		if c := &s.o.Containers[i]; c.ID != by.ID {
			s.do(Action{Kind: RemoveContainer, Container: c.Name, ID: c.ID, Attempt: c.Attempt})
		}
	}
	return true
}

// waitBackOff records that a container waits for its back-off.
func (s *stepper) waitBackOff(name string, b Backoff) {
	s.wait(name, ReasonCrash, fmt.Sprintf("back-off %s restarting failed container=%s pod=%s(%s)",
		b.delay, name, s.d.Pod.Name+"_"+s.d.Pod.Namespace, s.d.Pod.UID))
}
