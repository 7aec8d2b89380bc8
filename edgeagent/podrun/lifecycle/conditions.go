package lifecycle

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// conditions fills in the conditions that a node writes. Those of others, which readiness gates wait for, stay with the hub: a report with
// them might undo what their writer has changed meanwhile.
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
	unready := s.unready(st)
	reason, message := "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	switch {
	case done:
		reason, message = "PodCompleted", ""
	case st.Phase == corev1.PodFailed:
		reason, message = "PodFailed", ""
	}
	ready := len(unready) == 0 && initialised && !Ended(st.Phase)
	gates := kube.UnmetGates(s.d.Pod)
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
		on, reason, message := s.restartingAll(st.Phase)
		set(corev1.AllContainersRestarting, on, reason, message)
	}
	if c := s.disruption(st); c != nil {
		st.Conditions = append(st.Conditions, *c)
	}
	s.resizeConditions(st)
	set(corev1.PodScheduled, true, "", "")
}

// unready names the containers and sidecars that are not ready.
func (s *stepper) unready(st *corev1.PodStatus) []string {
	var names []string
	for i, c := range s.d.Pod.Spec.InitContainers {
		if kube.IsSidecar(&c) && !st.InitContainerStatuses[i].Ready {
			names = append(names, c.Name)
		}
	}
	for _, cs := range st.ContainerStatuses {
		if !cs.Ready {
			names = append(names, cs.Name)
		}
	}
	return names
}

// restartingAll returns whether all containers are being restarted, with the condition's reason and message.
func (s *stepper) restartingAll(phase corev1.PodPhase) (on bool, reason, message string) {
	switch by := s.allRestarter(); {
	case phase == corev1.PodFailed:
		return false, "PodFailed", ""
	case by != nil && !Ended(phase):
		return true, "RestartAllContainersStarted", "container exited with restart policy rule"
	}
	return false, "", ""
}
