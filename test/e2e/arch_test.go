package e2e

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// Field failure 13: an image that exists only for other machines. The first pod says so on its node; the next ones are not
// sent to nodes of that architecture at all; and when the image has been built for it after all, both run.
func TestWrongArchitecture(t *testing.T) {
	t.Parallel()
	ms := harness.LAN(t, "arch", 3)
	h := harness.StartHub(t, ms[0])
	host, push := harness.StartRegistry(t, ms[0])
	h.Join(ms[1], "one", "--plain-http-registry", host)
	h.Join(ms[2], "two", "--plain-http-registry", host)

	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	own := runtimetest.Busybox(t)
	foreign := runtimetest.Built(t, own, other)
	push("team/both:1", foreign, own)
	push("team/foreign:1", foreign)
	run := func(pod, image string) {
		t.Helper()
		h.Kubectl("run", pod, "--image", host+"/"+image, "--command", "--", "sleep", "1000")
	}
	running := func(pod string) {
		t.Helper()
		if _, err := h.TryKubectl("wait", "--for=condition=Ready", "pod/"+pod, "--timeout=2m"); err != nil {
			t.Fatalf("%v\n%s", err, h.Kubectl("describe", "pod", pod))
		}
	}

	run("both", "team/both:1")
	running("both")

	run("first", "team/foreign:1")
	image := host + "/team/foreign:1"
	clear := fmt.Sprintf("image %q exists for %s, not for this node's %s; delete the pod to have it placed on a node that fits, or build the image for %[3]s too",
		image, other, runtime.GOARCH)
	h.Eventually(30*time.Second, "the pod says what is wrong", func() error {
		waiting := h.Kubectl("get", "pod", "first", "-o", "jsonpath={.status.containerStatuses[0].state.waiting}")
		if !strings.Contains(waiting, "Err") && !strings.Contains(waiting, "BackOff") || !strings.Contains(strings.ReplaceAll(waiting, `\"`, `"`), clear) {
			return fmt.Errorf("it waits: %s", waiting)
		}
		return nil
	})

	refused := fmt.Sprintf("0/2 nodes are available: 2 node(s) had architecture %s, for which there is no image %s (only for %s).", runtime.GOARCH, image, other)
	run("second", "team/foreign:1")
	h.Eventually(20*time.Second, "the second pod says why it waits", func() error {
		out := h.Kubectl("get", "events", "--field-selector=involvedObject.name=second,reason=FailedScheduling", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, refused) {
			return fmt.Errorf("events: %q, pod: %s", out, h.Kubectl("get", "pod", "second", "-o", "jsonpath={.spec.nodeName} {.status.conditions}"))
		}
		return nil
	})
	if got := h.Kubectl("get", "pod", "second", "-o", "jsonpath={.status.phase} {.spec.nodeName}"); got != "Pending " {
		t.Errorf("the second pod is %q", got)
	}

	// A hub that restarts gets the reports again from the nodes; pods that it places before that may go to the wrong node.
	h.Stop(unix.SIGTERM)
	h.Start()
	h.Eventually(40*time.Second, "the third pod waits for the same reason", func() error {
		h.Kubectl("delete", "pod", "third", "--ignore-not-found", "--now")
		run("third", "team/foreign:1")
		h.Kubectl("wait", "--for=jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].status}", "pod/third", "--timeout=2m")
		if out := h.Kubectl("get", "pod", "third", "-o", "jsonpath={.spec.nodeName} {.status.conditions[*].message}"); !strings.HasPrefix(out, " "+refused) { // what follows is about preemption
			return fmt.Errorf("pod: %s", out)
		}
		return nil
	})

	push("team/foreign:1", foreign, own)
	for _, pod := range []string{"first", "second", "third"} {
		running(pod)
	}
}
