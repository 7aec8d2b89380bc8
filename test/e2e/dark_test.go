package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// pinned is a pod for one node, whose server says generation.
func pinned(name, node, generation, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}, annotations: {generation: %q}}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  terminationGracePeriodSeconds: 1
  containers:
  - name: hello
    image: petrel.local/hello:v1
    args: [serve, --listen, ":8080", --files, /conf]
    env: [{name: GENERATION, value: %q}]
    volumeMounts: [{name: conf, mountPath: /conf}]
  volumes: [{name: conf, configMap: {name: conf}}]
%s`, name, name, generation, node, generation, more)
}

const conf = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {motto: %s}\n"

// Weather 2 and 10: the link is gone for a while, and meanwhile the cluster changes: a scale, a pod deleted and made again
// under its name, a new ConfigMap value, a rollout, another hub address on the node. All of it arrives; what need not
// restart does not, and nothing is there twice.
func TestLinkGoneMeanwhileChanges(t *testing.T) {
	harness.EachBroker(t, "gone", 3, linkGoneMeanwhileChanges)
}

func linkGoneMeanwhileChanges(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	h.Join(ms[1], "one")
	h.Join(ms[2], "two")
	h.Apply(fmt.Sprintf(conf, "before"))
	h.Apply(pinned("calm", "one", "first", "") + "\n---" + pinned("again", "one", "first", ""))
	h.Apply(fmt.Sprintf(helloManifest, 4))
	h.Apply(strings.ReplaceAll(fmt.Sprintf(helloManifest, 2), "hello}", "rolled}"))
	h.Available("hello")
	h.Available("rolled")
	h.Running("calm")
	h.Running("again")
	calm, hello := h.LifeOf("calm"), h.Lives("app=hello")
	old := h.Kubectl("get", "pod", "again", "-o", "jsonpath={.metadata.uid}")
	oldPID := harness.ContainerPID(old)

	ms[1].Unplug(t)
	h.Kubectl("scale", "deploy/hello", "--replicas=6")
	h.Kubectl("delete", "pod", "again", "--force", "--grace-period=0")
	h.Apply(pinned("again", "one", "second", ""))
	h.Apply(fmt.Sprintf(conf, "after"))
	h.Kubectl("patch", "deploy", "rolled", "-p", `{"spec":{"template":{"metadata":{"annotations":{"v":"2"}}}}}`)
	h.Kubectl("delete", "service", "rolled")
	if pid := harness.ContainerPID(old); pid != oldPID {
		t.Errorf("a node without a link changed something: pid %d, before %d", pid, oldPID)
	}
	time.Sleep(5 * time.Second) // that what was sent is lost, not only late
	ms[1].Plug(t)

	h.Eventually(90*time.Second, "the new pod runs", func() error {
		_, err := h.TryKubectl("wait", "--for=condition=Ready", "pod/again", "--timeout=1s")
		return err
	})
	h.Says(ms[1], "again", "GENERATION=second", "motto: after")
	harness.Eventually(t, 20*time.Second, "the old pod of that name has ended", func() error {
		if pid := harness.ContainerPID(old); pid != 0 {
			return fmt.Errorf("pid %d of pod %s runs", pid, old)
		}
		return nil
	})
	h.Available("hello")
	h.Available("rolled")
	h.Says(ms[1], "calm", "GENERATION=first", "motto: after")
	if now := h.LifeOf("calm"); now != calm {
		t.Errorf("a pod that nobody changed was touched: %s, before %s", now, calm)
	}
	now := h.Lives("app=hello")
	for line := range strings.Lines(hello) {
		if !strings.Contains(now, line) {
			t.Errorf("scaling touched\n%snow\n%s", line, now)
		}
	}
	h.NoDoubles(t)
}

// D7: a node that is dark is reported so, Services go around it, its pods stay when they may; what was deleted meanwhile ends
// with its return, and nothing else is touched.
func TestDarkNode(t *testing.T) { harness.EachBroker(t, "dark", 3, darkNode) }

func darkNode(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	one := h.Join(ms[1], "one")
	h.Join(ms[2], "two")
	const soon = "  tolerations: [{key: node.kubernetes.io/unreachable, effect: NoExecute, tolerationSeconds: 1}]\n"
	h.Apply(fmt.Sprintf(conf, "x"))
	h.Apply(fmt.Sprintf(helloManifest, 4))
	h.Apply(pinned("short", "one", "a", soon) + "\n---" + pinned("victim", "one", "a", "") + "\n---" +
		strings.Replace(pinned("loyal", "one", "a", soon), "annotations: {", "annotations: {petrel.dev/autonomy: forever, ", 1))
	h.Available("hello")
	for _, p := range []string{"short", "victim", "loyal"} {
		h.Running(p)
	}
	hello, loyal := h.Lives("app=hello"), h.LifeOf("loyal")
	victim := h.Kubectl("get", "pod", "victim", "-o", "jsonpath={.metadata.uid}")
	ip := h.Kubectl("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")

	one.Stop(syscall.SIGKILL) // its pods go on
	ms[1].Unplug(t)
	h.Kubectl("delete", "pod", "victim", "--wait=false")
	h.Eventually(90*time.Second, "the node is dark", func() error {
		out := h.Kubectl("get", "node", "one", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.spec.taints[*].key}`)
		if !strings.HasPrefix(out, "Unknown") || !strings.Contains(out, "node.kubernetes.io/unreachable") {
			return fmt.Errorf("it is %s", out)
		}
		return nil
	})
	h.Eventually(20*time.Second, "its endpoints are not ready", func() error {
		out := h.Kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=hello", "-o", `jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName} {end}`)
		if strings.TrimSpace(out) != "two two" {
			return fmt.Errorf("ready endpoints are on %q", out)
		}
		return nil
	})
	harness.Eventually(t, 20*time.Second, "the Service answers every time on the other node", func() error {
		for range 12 {
			if _, err := harness.Fetch(ms[2], "http://"+ip+"/"); err != nil {
				return err
			}
		}
		return nil
	})
	deleted := func(pod string) string {
		return h.Kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.deletionTimestamp}")
	}
	h.Eventually(30*time.Second, "the pod that tolerates a second is evicted", func() error {
		if deleted("short") == "" {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	if deleted("loyal") != "" {
		t.Error("the pod that may stay for ever was evicted")
	}
	if harness.ContainerPID(victim) == 0 {
		t.Error("the dark node stopped a pod by itself")
	}

	ms[1].Plug(t)
	one.Start()
	h.Ready("one")
	h.Kubectl("wait", "--for=delete", "pod/victim", "pod/short", "--timeout=2m")
	if pid := harness.ContainerPID(victim); pid != 0 {
		t.Errorf("the deleted pod still has pid %d", pid)
	}
	h.Eventually(30*time.Second, "all endpoints are back", func() error {
		out := h.Kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=hello", "-o", `jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName} {end}`)
		if n := len(strings.Fields(out)); n != 4 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if now := h.Lives("app=hello"); now != hello {
		t.Errorf("the return touched pods:\n%sbefore\n%s", now, hello)
	}
	if now := h.LifeOf("loyal"); now != loyal {
		t.Errorf("the return touched the pod: %s, before %s", now, loyal)
	}
	h.NoDoubles(t)
}

// Weather 14: streams end with the link, the agent or the hub that they go through, and the next ones work.
func TestStreamsEndWithTheLink(t *testing.T) { harness.EachBroker(t, "cut", 2, streamsEndWithTheLink) }

func streamsEndWithTheLink(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	a := h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(conf, "x"))
	h.Apply(pinned("p", "edge", "a", ""))
	h.Running("p")
	// open starts logs -f and an exec that waits without end, and gives what waits for their ends.
	open := func() (ended func(hope time.Duration, after string)) {
		t.Helper()
		procs := map[string]*harness.Process{}
		for name, args := range map[string][]string{
			"logs -f": {"logs", "-f", "p"},
			"exec":    {"exec", "p", "--", "/petrel", "serve", "--listen", ":0"},
		} {
			p := h.Background(t, args...)
			procs[name] = p
			harness.Eventually(t, 20*time.Second, name+" has output", func() error {
				if !strings.Contains(p.Out.String(), "listening on") {
					return fmt.Errorf("it is %q", p.Out.String())
				}
				return nil
			})
		}
		return func(hope time.Duration, after string) {
			t.Helper()
			for name, p := range procs {
				select {
				case err := <-p.Done:
					p.Done <- err
					if err == nil && name == "exec" {
						t.Errorf("exec ends after %s as if its command had ended well", after)
					}
				case <-time.After(hope):
					t.Errorf("%s goes on after %s", name, after)
				}
			}
		}
	}
	works := func() {
		t.Helper()
		h.Eventually(60*time.Second, "exec works again", func() error {
			_, err := h.TryKubectl("exec", "p", "--", "/petrel", "version", "--client")
			return err
		})
		if out := h.Kubectl("logs", "p"); !strings.Contains(out, "listening on") {
			t.Errorf("logs are %q", out)
		}
	}
	ended := open()
	h.Stop(syscall.SIGKILL)
	ended(2*time.Minute, "the hub's end")
	h.Start()
	h.Ready("edge")
	works()

	ended = open()
	a.Stop(syscall.SIGKILL)
	ended(2*time.Minute, "the agent's end")
	a.Start()
	h.Ready("edge")
	works()

	ended = open()
	ms[1].Unplug(t)
	ended(5*time.Minute, "the link's end")
	ms[1].Plug(t)
	works()
}
