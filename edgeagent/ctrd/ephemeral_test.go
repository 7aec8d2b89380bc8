package ctrd

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/wire"
)

// TestEphemeralContainer checks that a container which is added to a running pod sees the processes of its target, and only with
// a target; that a terminal can be attached to it; and that it runs once and ends with its target.
func TestEphemeralContainer(t *testing.T) {
	b := newBench(t)
	main := corev1.Container{Command: []string{"/bin/sh", "-c", "sleep 985; exit 3"}}
	b.pod("p", main)
	b.await("p", "running", isRunning)
	var ephemeral []corev1.EphemeralContainer
	add := func(e corev1.EphemeralContainerCommon, target string) {
		t.Helper()
		e.Image = testImage
		ephemeral = append(ephemeral, corev1.EphemeralContainer{EphemeralContainerCommon: e, TargetContainerName: target})
		b.set = nil
		b.pod("p", main, func(p *corev1.Pod) { p.Spec.EphemeralContainers = ephemeral })
	}
	state := func(name string) func(corev1.PodStatus) *corev1.ContainerState {
		return func(st corev1.PodStatus) *corev1.ContainerState {
			for i := range st.EphemeralContainerStatuses {
				if c := &st.EphemeralContainerStatuses[i]; c.Name == name {
					return &c.State
				}
			}
			return &corev1.ContainerState{}
		}
	}
	runs := func(name string) func(corev1.PodStatus) bool {
		return func(st corev1.PodStatus) bool { return state(name)(st).Running != nil }
	}
	ended := func(name string) func(corev1.PodStatus) bool {
		return func(st corev1.PodStatus) bool { return state(name)(st).Terminated != nil }
	}
	before := b.await("p", "running", isRunning).ContainerStatuses[0].ContainerID

	add(corev1.EphemeralContainerCommon{Name: "alone", Command: []string{"/bin/sleep", "984"}}, "")
	b.await("p", "looked at", runs("alone"))
	if ps := b.shell("p", "alone", "ps"); strings.Contains(ps, "985") || !strings.Contains(ps, "984") {
		t.Errorf("without a target a container sees\n%s", ps)
	}
	add(corev1.EphemeralContainerCommon{Name: "debug", Command: []string{"/bin/sh"}, Stdin: true, TTY: true}, "main")
	b.await("p", "debugged", runs("debug"))
	if ps := b.shell("p", "debug", "ps"); !strings.Contains(ps, "sleep 985") || strings.Contains(ps, "984") {
		t.Errorf("beside its target a container sees\n%s", ps)
	}
	s := b.dial(wire.StreamRequest{PodUID: "p", Container: "debug", Kind: wire.StreamAttach, Stdin: true, Stdout: true, TTY: true})
	time.Sleep(100 * time.Millisecond)
	send(t, s, wire.ChannelStdin, "echo $((6*7))\n")
	until(t, s, "42")
	_ = s.Close(wire.StreamEnd{})

	// One that has ended does not come back, and concerns nobody else.
	add(corev1.EphemeralContainerCommon{Name: "short", Command: []string{"/bin/sh", "-c", "exit 7"}}, "main")
	st := b.await("p", "left alone", ended("short"))
	if code := state("short")(st).Terminated.ExitCode; code != 7 || !isRunning(st) || st.ContainerStatuses[0].ContainerID != before {
		t.Errorf("exit code %d, and the pod is %+v", code, st.ContainerStatuses)
	}
	// The target's end is that of its process namespace. It starts again, the other does not.
	b.shell("p", "debug", "kill -9 $(pidof sleep)")
	st = b.await("p", "restarted", func(st corev1.PodStatus) bool {
		return isRunning(st) && st.ContainerStatuses[0].RestartCount == 1 && ended("debug")(st)
	})
	if code := state("debug")(st).Terminated.ExitCode; code != 137 {
		t.Errorf("with its target a container ends with %d", code)
	}
}
