package edgeagent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestEphemeralContainerLives checks that the agent adopts an ephemeral container when it comes back, and does not start it again
// after a reboot: how it ended stays in the pod's status.
func TestEphemeralContainerLives(t *testing.T) {
	m := newMachine(t)
	p := pod("p", sh("main", "sleep 1000"))
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{TargetContainerName: "main", EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", Image: testImage, Command: []string{"/bin/sh"}, Stdin: true, TTY: true}}}
	m.want(p)
	m.boot()
	runs := func(st corev1.PodStatus) bool {
		return ready(st) && len(st.EphemeralContainerStatuses) == 1 && st.EphemeralContainerStatuses[0].State.Running != nil
	}
	before := m.await("uid-p", "debugged", runs).EphemeralContainerStatuses[0]
	m.kill()
	m.boot()
	if c := m.await("uid-p", "adopted", runs).EphemeralContainerStatuses[0]; c.ContainerID != before.ContainerID || c.RestartCount != 0 {
		t.Errorf("not adopted: %+v", c)
	}
	m.powerOff()
	m.boot()
	st := m.await("uid-p", "ready again", func(st corev1.PodStatus) bool { return ready(st) && st.ContainerStatuses[0].RestartCount == 1 })
	c := st.EphemeralContainerStatuses[0]
	if e := c.State.Terminated; e == nil || e.Reason != "Unknown" || e.ExitCode != 255 || c.ContainerID != before.ContainerID || c.RestartCount != 0 {
		t.Errorf("after a reboot: %+v", c)
	}
}
