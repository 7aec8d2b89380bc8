package e2e

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// What people do with kubectl that goes on for a while: watch, follow, a terminal, forwarded ports; and the deletions that
// have more to them.
func TestKubectlLive(t *testing.T) { harness.EachBroker(t, "live", 2, kubectlLive) }

func kubectlLive(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(conf, "x"))
	h.Apply(pinned("p", "edge", "a", ""))
	h.Apply(fmt.Sprintf(helloManifest, 1))
	h.Running("p")
	h.Available("hello")
	// shows waits until a running kubectl has said all of wants.
	shows := func(t *testing.T, p *harness.Process, wants ...string) {
		t.Helper()
		harness.Eventually(t, 20*time.Second, "it shows "+strings.Join(wants, ", "), func() error {
			for _, w := range wants {
				if !strings.Contains(p.Out.String(), w) {
					return fmt.Errorf("it shows\n%s", p.Out.String())
				}
			}
			return nil
		})
	}

	h.Sub("get -w", func(t *testing.T) {
		w := h.Background(t, "get", "deploy", "hello", "-w")
		shows(t, w, "1/1")
		h.Kubectl("scale", "deploy/hello", "--replicas=2")
		shows(t, w, "2/2")
	})
	h.Sub("logs -f", func(t *testing.T) {
		f := h.Background(t, "logs", "-f", "p", "--tail=1")
		shows(t, f, "listening on")
		h.Says(ms[1], "p", "Hello from p")
		shows(t, f, "GET /")
	})
	h.Sub("logs --previous", func(t *testing.T) {
		harness.KillContainer(t, strings.Fields(h.LifeOf("p"))[0])
		h.Eventually(30*time.Second, "the earlier life's log is there", func() error {
			out, err := h.TryKubectl("logs", "p", "--previous")
			if err == nil && !strings.Contains(out, "GET /") {
				err = fmt.Errorf("it is %q", out)
			}
			return err
		})
		h.Running("p")
	})
	h.Sub("exec with a terminal", func(t *testing.T) {
		line := strings.Join([]string{harness.KubectlPath, "--kubeconfig", h.Kubeconfig, "exec", "-it", "p", "--", "/petrel", "version", "--client"}, " ")
		out, err := h.On.Command(t.Context(), "script", "-qec", line, "/dev/null").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Kubernetes API") || !strings.Contains(string(out), "\r\n") {
			t.Errorf("got %v: %q", err, out)
		}
		line = strings.Replace(line, "version --client", "no-such-command", 1)
		out, err = h.On.Command(t.Context(), "script", "-qec", line, "/dev/null").CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("the exit code of a command on a terminal should be kubectl's: %v: %q", err, out)
		}
	})
	h.Sub("port-forward", func(t *testing.T) {
		f := h.Background(t, "port-forward", "pod/p", "18080:8080")
		shows(t, f, "Forwarding from 127.0.0.1:18080")
		url := "http://" + net.JoinHostPort("127.0.0.1", "18080") + "/"
		for range 3 {
			out, err := harness.Fetch(ms[0], url)
			if err != nil || !strings.Contains(out, "Hello from p") {
				t.Errorf("got %v: %s", err, out)
			}
		}
		f.Stop(syscall.SIGINT)
	})
	h.Sub("cordon", func(t *testing.T) {
		h.Kubectl("cordon", "edge")
		if out := h.Kubectl("get", "node", "edge"); !strings.Contains(out, "SchedulingDisabled") {
			t.Errorf("the node shows as\n%s", out)
		}
		h.Apply(pinned("waits", "edge", "a", ""))
		h.Eventually(20*time.Second, "the scheduler says why the pod waits", func() error {
			if out := h.Kubectl("describe", "pod", "waits"); !strings.Contains(out, "unschedulable") {
				return fmt.Errorf("it says\n%s", harness.Tail(out, 5))
			}
			return nil
		})
		h.Kubectl("uncordon", "edge")
		h.Running("waits")
	})
	h.Sub("delete with a grace period", func(t *testing.T) {
		uid := strings.Fields(h.LifeOf("waits"))[0]
		h.Kubectl("delete", "pod", "waits", "--grace-period=5", "--wait=true", "--timeout=2m")
		if pid := harness.ContainerPID(uid); pid != 0 {
			t.Errorf("kubectl said deleted, pid %d runs", pid)
		}
	})
	h.Sub("delete --cascade=orphan", func(t *testing.T) {
		pods := h.Lives("app=hello")
		h.Kubectl("delete", "deploy", "hello", "--cascade=orphan")
		if out := h.Kubectl("get", "rs", "-l", "app=hello", "-o", "jsonpath={.items[*].metadata.ownerReferences}"); out != "" {
			t.Errorf("the orphan still has owners: %s", out)
		}
		rs := strings.TrimSpace(h.Kubectl("get", "rs", "-l", "app=hello", "-o", "name"))
		h.Kubectl("delete", rs, "--cascade=orphan")
		time.Sleep(time.Second) // a garbage collector that was wrong would have begun
		if now := h.Lives("app=hello"); now != pods {
			t.Errorf("orphans were touched:\n%sbefore\n%s", now, pods)
		}
	})
	h.Sub("a file of several documents", func(t *testing.T) {
		both := "---\n# only a comment\n---\n" + fmt.Sprintf(conf, "changed") + "---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: listed}, data: {a: b}}\n"
		out := h.Apply(both)
		if !strings.Contains(out, "configmap/conf configured") || !strings.Contains(out, "configmap/listed created") {
			t.Errorf("apply says\n%s", out)
		}
		if out, err := h.TryKubectlIn(both, "delete", "-f", "-"); err != nil || strings.Count(out, "deleted") != 2 {
			t.Errorf("delete says %v\n%s", err, out)
		}
	})
}
