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
)

// What people do with kubectl that goes on for a while: watch, follow, a terminal, forwarded ports; and the deletions that
// have more to them.
func TestKubectlLive(t *testing.T) { eachBroker(t, "live", 2, kubectlLive) }

func kubectlLive(t *testing.T, ms []machine, h *hub) {
	h.join(ms[1], "edge")
	h.apply(fmt.Sprintf(conf, "x"))
	h.apply(pinned("p", "edge", "a", ""))
	h.apply(fmt.Sprintf(helloManifest, 1))
	h.running("p")
	h.available("hello")
	// shows waits until a running kubectl has said all of wants.
	shows := func(t *testing.T, p *process, wants ...string) {
		t.Helper()
		eventually(t, 20*time.Second, "it shows "+strings.Join(wants, ", "), func() error {
			for _, w := range wants {
				if !strings.Contains(p.out.String(), w) {
					return fmt.Errorf("it shows\n%s", p.out.String())
				}
			}
			return nil
		})
	}

	h.sub("get -w", func(t *testing.T) {
		w := h.background(t, "get", "deploy", "hello", "-w")
		shows(t, w, "1/1")
		h.k("scale", "deploy/hello", "--replicas=2")
		shows(t, w, "2/2")
	})
	h.sub("logs -f", func(t *testing.T) {
		f := h.background(t, "logs", "-f", "p", "--tail=1")
		shows(t, f, "listening on")
		h.says(ms[1], "p", "Hello from p")
		shows(t, f, "GET /")
	})
	h.sub("logs --previous", func(t *testing.T) {
		killContainer(t, strings.Fields(h.lifeOf("p"))[0])
		h.eventually(30*time.Second, "the earlier life's log is there", func() error {
			out, err := h.try("logs", "p", "--previous")
			if err == nil && !strings.Contains(out, "GET /") {
				err = fmt.Errorf("it is %q", out)
			}
			return err
		})
		h.running("p")
	})
	h.sub("exec with a terminal", func(t *testing.T) {
		line := strings.Join([]string{kubectl, "--kubeconfig", h.kubeconfig, "exec", "-it", "p", "--", "/petrel", "version", "--client"}, " ")
		out, err := h.on.command(t.Context(), "script", "-qec", line, "/dev/null").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Kubernetes API") || !strings.Contains(string(out), "\r\n") {
			t.Errorf("got %v: %q", err, out)
		}
		line = strings.Replace(line, "version --client", "no-such-command", 1)
		out, err = h.on.command(t.Context(), "script", "-qec", line, "/dev/null").CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("the exit code of a command on a terminal should be kubectl's: %v: %q", err, out)
		}
	})
	h.sub("port-forward", func(t *testing.T) {
		f := h.background(t, "port-forward", "pod/p", "18080:8080")
		shows(t, f, "Forwarding from 127.0.0.1:18080")
		url := "http://" + net.JoinHostPort("127.0.0.1", "18080") + "/"
		for range 3 {
			out, err := fetch(ms[0], url)
			if err != nil || !strings.Contains(out, "Hello from p") {
				t.Errorf("got %v: %s", err, out)
			}
		}
		f.stop(syscall.SIGINT)
	})
	h.sub("cordon", func(t *testing.T) {
		h.k("cordon", "edge")
		if out := h.k("get", "node", "edge"); !strings.Contains(out, "SchedulingDisabled") {
			t.Errorf("the node shows as\n%s", out)
		}
		h.apply(pinned("waits", "edge", "a", ""))
		h.eventually(20*time.Second, "the scheduler says why the pod waits", func() error {
			if out := h.k("describe", "pod", "waits"); !strings.Contains(out, "unschedulable") {
				return fmt.Errorf("it says\n%s", tail(out, 5))
			}
			return nil
		})
		h.k("uncordon", "edge")
		h.running("waits")
	})
	h.sub("delete with a grace period", func(t *testing.T) {
		uid := strings.Fields(h.lifeOf("waits"))[0]
		h.k("delete", "pod", "waits", "--grace-period=5", "--wait=true", "--timeout=30s")
		if pid := containerPID(uid); pid != 0 {
			t.Errorf("kubectl said deleted, pid %d runs", pid)
		}
	})
	h.sub("delete --cascade=orphan", func(t *testing.T) {
		pods := h.lives("app=hello")
		h.k("delete", "deploy", "hello", "--cascade=orphan")
		if out := h.k("get", "rs", "-l", "app=hello", "-o", "jsonpath={.items[*].metadata.ownerReferences}"); out != "" {
			t.Errorf("the orphan still has owners: %s", out)
		}
		rs := strings.TrimSpace(h.k("get", "rs", "-l", "app=hello", "-o", "name"))
		h.k("delete", rs, "--cascade=orphan")
		time.Sleep(time.Second) // a garbage collector that was wrong would have begun
		if now := h.lives("app=hello"); now != pods {
			t.Errorf("orphans were touched:\n%sbefore\n%s", now, pods)
		}
	})
	h.sub("a file of several documents", func(t *testing.T) {
		both := "---\n# only a comment\n---\n" + fmt.Sprintf(conf, "changed") + "---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: listed}, data: {a: b}}\n"
		out := h.apply(both)
		if !strings.Contains(out, "configmap/conf configured") || !strings.Contains(out, "configmap/listed created") {
			t.Errorf("apply says\n%s", out)
		}
		if out, err := h.tryIn(both, "delete", "-f", "-"); err != nil || strings.Count(out, "deleted") != 2 {
			t.Errorf("delete says %v\n%s", err, out)
		}
	})
}
