package hostile

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/test/harness"
)

const (
	busybox     = "petrel.local/busybox:1"
	pipeForUser = "petrel.local/pipe:1"
)

// podNode is a hub and one node with a shell for hostile pods, on machines of their own.
func podNode(t *testing.T, name string, args ...string) (*harness.Hub, *harness.Agent) {
	t.Helper()
	beside(t)
	ms := harness.LAN(t, name, 2)
	h := harness.StartHub(t, ms[0])
	h.Images = map[string]v1.Image{busybox: runtimetest.Busybox(t), pipeForUser: withPipe(t)}
	return h, h.Join(ms[1], "node", args...)
}

// withPipe is an image with a FIFO in the place of its users.
func withPipe(t *testing.T) v1.Image {
	t.Helper()
	return runtimetest.WithEntry(t, runtimetest.Busybox(t), tar.Header{Name: "etc/passwd", Typeflag: tar.TypeFifo, Mode: 0o644}, nil)
}

// shellPod makes a pod that runs a script.
func shellPod(h *harness.Hub, name, image, script string) {
	second := int64(1) // with none the API forgets the pod at once, whatever the node does
	p := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &second, Containers: []corev1.Container{{Name: "main", Image: image,
			ImagePullPolicy: corev1.PullNever, Command: []string{"/bin/sh", "-c", script}}}}}
	b, _ := json.Marshal(p) // a pod is always JSON
	h.Apply(string(b))
}

const rest1000 = "exec sleep 1000"

// notEnded fails the test when the agent has ended.
func notEnded(t *testing.T, a *harness.Agent) {
	t.Helper()
	select {
	case err := <-a.Done:
		a.Done <- err
		t.Fatalf("the agent has ended: %v", err)
	default:
	}
}

// alive is notEnded, and the agent may never have needed more memory than bound, in MiB.
func alive(t *testing.T, a *harness.Agent, bound int64) {
	t.Helper()
	notEnded(t, a)
	use := harness.UsageOf(t, a.Cmd.Process.Pid)
	t.Logf("agent: %d MiB, %d MiB at most", use.RSS>>10, use.Peak>>10)
	if use.Peak>>10 > bound {
		t.Errorf("the agent has needed %d MiB, bound %d", use.Peak>>10, bound)
	}
}

// Row "hosts, hostname, resolv.conf and termination messages": a pod makes its own of them as large as a disk, and fills them.
// The agent read them back: it ended within seconds, and at each start again.
func TestPodOwnFiles(t *testing.T) {
	h, a := podNode(t, "files")
	mib := 64
	if Full() {
		mib = 1024
	}
	shellPod(h, "before", busybox, rest1000)
	h.Running("before")
	shellPod(h, "evil", busybox, fmt.Sprintf(`for f in /etc/hostname /etc/hosts /etc/resolv.conf /dev/termination-log; do
		truncate -s 1099511627776 $f; dd if=/dev/zero of=$f bs=1M count=%d conv=notrunc; done; sleep 1; exit 1`, mib))
	h.Eventually(90*time.Second, "the hostile pod is started again", func() error {
		notEnded(t, a)
		got, err := h.TryKubectl("get", "pod", "evil", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
		if err != nil || got == "" || got == "0" {
			return fmt.Errorf("restarts %q, %v", got, err)
		}
		return nil
	})
	shellPod(h, "after", busybox, rest1000)
	h.Running("after")
	alive(t, a, 300)
	a.Stop(syscall.SIGKILL)
	a.Start()
	shellPod(h, "later", busybox, rest1000)
	h.Running("later")
	alive(t, a, 300)
	h.Kubectl("delete", "pod", "evil", "--timeout=2m")
}

// Row "a look at a container": a pod's process has a shim's name and arguments, and a FIFO where a shim has its bundle. No other
// pod was removed any more.
func TestPodForgesShim(t *testing.T) {
	h, a := podNode(t, "shim")
	shellPod(h, "evil", busybox, `mkdir -p /tmp/containerd-shim /w; cd /w; mkfifo config.json; cp /bin/busybox /tmp/containerd-shim/sh
		exec /tmp/containerd-shim/sh -c 'while :; do sleep 1; done' -namespace petrel x`)
	h.Running("evil")
	pods := 3
	if Full() {
		pods = 20
	}
	for i := range pods {
		shellPod(h, fmt.Sprint("other-", i), busybox, rest1000)
	}
	for i := range pods {
		h.Running(fmt.Sprint("other-", i))
	}
	for i := range pods {
		if out, err := h.TryKubectl("delete", "pod", fmt.Sprint("other-", i), "--timeout=2m"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	if out := h.Kubectl("exec", "evil", "--", "/bin/sh", "-c", "echo still here"); !strings.Contains(out, "still here") {
		t.Errorf("the pod that nobody deleted: %s", out)
	}
	h.Kubectl("delete", "pod", "evil", "--timeout=2m")
	alive(t, a, 300)
}

// Row "an image's /etc/passwd": as many pods as there are slots for starts have an image with a FIFO there. The node started
// nothing any more.
func TestPodImageWithPipe(t *testing.T) {
	h, a := podNode(t, "pipe")
	pods := max(2, runtime.NumCPU())
	if Full() {
		pods *= 5
	}
	for i := range pods {
		shellPod(h, fmt.Sprint("evil-", i), pipeForUser, rest1000)
	}
	for i := range pods {
		name := fmt.Sprint("evil-", i)
		h.Eventually(60*time.Second, name+" says why it does not start", func() error {
			got, err := h.TryKubectl("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].state.waiting}")
			if err == nil && !strings.Contains(got, "not a regular file but a FIFO") {
				err = errors.New(got)
			}
			return err
		})
	}
	shellPod(h, "innocent", busybox, rest1000)
	h.Running("innocent")
	for i := range pods {
		h.Kubectl("delete", "pod", fmt.Sprint("evil-", i), "--timeout=2m")
	}
	alive(t, a, 300)
}

// Row "processes and threads of a pod": a pod begins more processes than it may have. They were not counted.
func TestPodForkBomb(t *testing.T) {
	limit, args := 200, []string{"--pod-pids-limit", "200"}
	if Full() {
		limit, args = 4096, nil
	}
	h, a := podNode(t, "bomb", args...)
	shellPod(h, "other", busybox, rest1000)
	h.Running("other")
	shellPod(h, "evil", busybox, fmt.Sprintf(`i=0; while [ $i -lt %d ]; do sleep 1000 & i=$((i+1)); done; echo all of them; exec sleep 1000`, limit+100))
	h.Eventually(2*time.Minute, "the bomb has gone off", func() error {
		out, err := h.TryKubectl("logs", "evil", "--tail=5")
		if err == nil && strings.Contains(out, "all of them") {
			t.Fatalf("%d processes and more", limit+100)
		}
		if err == nil && !strings.Contains(out, "fork") {
			err = fmt.Errorf("it says %q", out)
		}
		if err != nil {
			out, _ = h.TryKubectl("logs", "evil", "--previous", "--tail=5")
			if strings.Contains(out, "fork") {
				err = nil
			}
		}
		return err
	})
	if out := h.Kubectl("exec", "other", "--", "/bin/sh", "-c", "sleep 0 & wait; echo I can"); !strings.Contains(out, "I can") {
		t.Errorf("another pod: %s", out)
	}
	h.Kubectl("delete", "pod", "evil", "--timeout=2m")
	alive(t, a, 300)
}
