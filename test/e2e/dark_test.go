package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unplug takes a machine off the LAN's switch without anybody's interface noticing: packets just vanish. plug undoes it.
func (m machine) unplug(t *testing.T) { m.port(t, "nomaster") }
func (m machine) plug(t *testing.T)   { m.port(t, "master", "br0") }

func (m machine) port(t *testing.T, args ...string) {
	t.Helper()
	i := strings.LastIndexByte(m.ns, '-')
	cmd := exec.Command("ip", append([]string{"-n", m.ns[:i], "link", "set", "p" + m.ns[i+1:]}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

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

// running waits until a pod is ready.
func (h *hub) running(pod string) {
	h.t.Helper()
	h.k("wait", "--for=condition=Ready", "pod/"+pod, "--timeout=40s")
}

// says waits until a pod's server answers with all of wants, asked on its own node.
func (h *hub) says(on machine, pod string, wants ...string) {
	h.t.Helper()
	h.eventually(60*time.Second, pod+" says "+strings.Join(wants, ", "), func() error {
		ip, err := h.try("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
		if err != nil {
			return err
		}
		out, err := fetch(on, "http://"+ip+":8080/")
		for _, w := range wants {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("no %q in %s", w, out)
			}
		}
		return err
	})
}

// lifeOf is a line of lives for each pod, but without restarts by others.
func (h *hub) lifeOf(pod string) string {
	h.t.Helper()
	return h.k("get", "pod", pod, "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
}

// Weather 2 and 10: the link is gone for a while, and meanwhile the cluster changes: a scale, a pod deleted and made again
// under its name, a new ConfigMap value, a rollout, another hub address on the node. All of it arrives; what need not
// restart does not, and nothing is there twice.
func TestLinkGoneMeanwhileChanges(t *testing.T) { eachBroker(t, "gone", 3, linkGoneMeanwhileChanges) }

func linkGoneMeanwhileChanges(t *testing.T, ms []machine, h *hub) {
	h.join(ms[1], "one")
	h.join(ms[2], "two")
	h.apply(fmt.Sprintf(conf, "before"))
	h.apply(pinned("calm", "one", "first", "") + "\n---" + pinned("again", "one", "first", ""))
	h.apply(fmt.Sprintf(helloManifest, 4))
	h.apply(strings.ReplaceAll(fmt.Sprintf(helloManifest, 2), "hello}", "rolled}"))
	h.available("hello")
	h.available("rolled")
	h.running("calm")
	h.running("again")
	calm, hello := h.lifeOf("calm"), h.lives("app=hello")
	old := h.k("get", "pod", "again", "-o", "jsonpath={.metadata.uid}")
	oldPID := containerPID(old)

	ms[1].unplug(t)
	h.k("scale", "deploy/hello", "--replicas=6")
	h.k("delete", "pod", "again", "--force", "--grace-period=0")
	h.apply(pinned("again", "one", "second", ""))
	h.apply(fmt.Sprintf(conf, "after"))
	h.k("patch", "deploy", "rolled", "-p", `{"spec":{"template":{"metadata":{"annotations":{"v":"2"}}}}}`)
	h.k("delete", "service", "rolled")
	if pid := containerPID(old); pid != oldPID {
		t.Errorf("a node without a link changed something: pid %d, before %d", pid, oldPID)
	}
	time.Sleep(5 * time.Second) // that what was sent is lost, not only late
	ms[1].plug(t)

	h.eventually(90*time.Second, "the new pod runs", func() error {
		_, err := h.try("wait", "--for=condition=Ready", "pod/again", "--timeout=1s")
		return err
	})
	h.says(ms[1], "again", "GENERATION=second", "motto: after")
	eventually(t, 20*time.Second, "the old pod of that name has ended", func() error {
		if pid := containerPID(old); pid != 0 {
			return fmt.Errorf("pid %d of pod %s runs", pid, old)
		}
		return nil
	})
	h.available("hello")
	h.available("rolled")
	h.says(ms[1], "calm", "GENERATION=first", "motto: after")
	if now := h.lifeOf("calm"); now != calm {
		t.Errorf("a pod that nobody changed was touched: %s, before %s", now, calm)
	}
	now := h.lives("app=hello")
	for line := range strings.Lines(hello) {
		if !strings.Contains(now, line) {
			t.Errorf("scaling touched\n%snow\n%s", line, now)
		}
	}
	h.noDoubles(t)
}

// noDoubles compares the processes of hello containers with the cluster's pods: each pod has one, and none is nobody's.
func (h *hub) noDoubles(t *testing.T) {
	t.Helper()
	h.eventually(30*time.Second, "every pod has one process, and no process is without a pod", func() error {
		want := strings.Fields(h.k("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"))
		count := map[string]int{}
		for _, dir := range h.agents {
			for _, pid := range processesOf(dir) {
				cgroup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if !bytes.Contains(cmdline, []byte("serve\x00")) {
					continue
				}
				owner := fmt.Sprintf("nobody: pid %d", pid)
				for _, uid := range want {
					if bytes.Contains(cgroup, []byte(uid)) {
						owner = uid
					}
				}
				count[owner]++
			}
		}
		for _, uid := range want {
			if count[uid] != 1 {
				return fmt.Errorf("pod %s has %d processes", uid, count[uid])
			}
		}
		if len(count) != len(want) {
			return fmt.Errorf("%d pods, but processes of %v", len(want), count)
		}
		return nil
	})
}

// D7: a node that is dark is told so, Services go around it, its pods stay when they may; what was deleted meanwhile ends
// with its return, and nothing else is touched.
func TestDarkNode(t *testing.T) { eachBroker(t, "dark", 3, darkNode) }

func darkNode(t *testing.T, ms []machine, h *hub) {
	one := h.join(ms[1], "one")
	h.join(ms[2], "two")
	const soon = "  tolerations: [{key: node.kubernetes.io/unreachable, effect: NoExecute, tolerationSeconds: 1}]\n"
	h.apply(fmt.Sprintf(conf, "x"))
	h.apply(fmt.Sprintf(helloManifest, 4))
	h.apply(pinned("short", "one", "a", soon) + "\n---" + pinned("victim", "one", "a", "") + "\n---" +
		strings.Replace(pinned("loyal", "one", "a", soon), "annotations: {", "annotations: {petrel.dev/autonomy: forever, ", 1))
	h.available("hello")
	for _, p := range []string{"short", "victim", "loyal"} {
		h.running(p)
	}
	hello, loyal := h.lives("app=hello"), h.lifeOf("loyal")
	victim := h.k("get", "pod", "victim", "-o", "jsonpath={.metadata.uid}")
	ip := h.k("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")

	one.stop(syscall.SIGKILL) // its pods go on
	ms[1].unplug(t)
	h.k("delete", "pod", "victim", "--wait=false")
	h.eventually(90*time.Second, "the node is dark", func() error {
		out := h.k("get", "node", "one", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.spec.taints[*].key}`)
		if !strings.HasPrefix(out, "Unknown") || !strings.Contains(out, "node.kubernetes.io/unreachable") {
			return fmt.Errorf("it is %s", out)
		}
		return nil
	})
	h.eventually(20*time.Second, "its endpoints are not ready", func() error {
		out := h.k("get", "endpointslices", "-l", "kubernetes.io/service-name=hello", "-o", `jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName} {end}`)
		if strings.TrimSpace(out) != "two two" {
			return fmt.Errorf("ready endpoints are on %q", out)
		}
		return nil
	})
	eventually(t, 20*time.Second, "the Service answers every time on the other node", func() error {
		for range 12 {
			if _, err := fetch(ms[2], "http://"+ip+"/"); err != nil {
				return err
			}
		}
		return nil
	})
	deleted := func(pod string) string { return h.k("get", "pod", pod, "-o", "jsonpath={.metadata.deletionTimestamp}") }
	h.eventually(30*time.Second, "the pod that tolerates a second is evicted", func() error {
		if deleted("short") == "" {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	if deleted("loyal") != "" {
		t.Error("the pod that may stay for ever was evicted")
	}
	if containerPID(victim) == 0 {
		t.Error("the dark node stopped a pod by itself")
	}

	ms[1].plug(t)
	one.start()
	h.ready("one")
	h.k("wait", "--for=delete", "pod/victim", "pod/short", "--timeout=40s")
	if pid := containerPID(victim); pid != 0 {
		t.Errorf("the deleted pod still has pid %d", pid)
	}
	h.eventually(30*time.Second, "all endpoints are back", func() error {
		out := h.k("get", "endpointslices", "-l", "kubernetes.io/service-name=hello", "-o", `jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName} {end}`)
		if n := len(strings.Fields(out)); n != 4 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if now := h.lives("app=hello"); now != hello {
		t.Errorf("the return touched pods:\n%sbefore\n%s", now, hello)
	}
	if now := h.lifeOf("loyal"); now != loyal {
		t.Errorf("the return touched the pod: %s, before %s", now, loyal)
	}
	h.noDoubles(t)
}

// Weather 14: streams end with the link, the agent or the hub that they go through, and the next ones work.
func TestStreamsEndWithTheLink(t *testing.T) { eachBroker(t, "cut", 2, streamsEndWithTheLink) }

func streamsEndWithTheLink(t *testing.T, ms []machine, h *hub) {
	a := h.join(ms[1], "edge")
	h.apply(fmt.Sprintf(conf, "x"))
	h.apply(pinned("p", "edge", "a", ""))
	h.running("p")
	// open starts logs -f and an exec that waits for ever, and gives what waits for their ends.
	open := func() (ended func(hope time.Duration, after string)) {
		t.Helper()
		procs := map[string]*process{}
		for name, args := range map[string][]string{
			"logs -f": {"logs", "-f", "p"},
			"exec":    {"exec", "p", "--", "/petrel", "serve", "--listen", ":0"},
		} {
			p := h.background(t, args...)
			procs[name] = p
			eventually(t, 20*time.Second, name+" has output", func() error {
				if !strings.Contains(p.out.String(), "listening on") {
					return fmt.Errorf("it is %q", p.out.String())
				}
				return nil
			})
		}
		return func(hope time.Duration, after string) {
			t.Helper()
			for name, p := range procs {
				select {
				case err := <-p.done:
					p.done <- err
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
		h.eventually(60*time.Second, "exec works again", func() error {
			_, err := h.try("exec", "p", "--", "/petrel", "version", "--client")
			return err
		})
		if out := h.k("logs", "p"); !strings.Contains(out, "listening on") {
			t.Errorf("logs are %q", out)
		}
	}
	ended := open()
	h.stop(syscall.SIGKILL)
	ended(20*time.Second, "the hub's end")
	h.start()
	h.ready("edge")
	works()

	ended = open()
	a.stop(syscall.SIGKILL)
	ended(20*time.Second, "the agent's end")
	a.start()
	h.ready("edge")
	works()

	ended = open()
	ms[1].unplug(t)
	ended(150*time.Second, "the link's end")
	ms[1].plug(t)
	works()
}

// background starts kubectl.
func (h *hub) background(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: h.on.command(context.Background(), kubectl, append([]string{"--kubeconfig", h.kubeconfig}, args...)...), out: &lockedBuffer{}, done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.stop(syscall.SIGKILL) })
	return p
}
