package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Weather 8 and 9: who is a member. A second device cannot take a live one's name; a node that is deleted stops its pods
// and waits; a device without its old keys takes its old name over with a new token; a node's address changes.
func TestMembers(t *testing.T) { harness.EachBroker(t, "member", 3, members) }

func members(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	a := h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(conf, "x"))
	h.Apply(pinned("p", "edge", "a", ""))
	h.Running("p")
	life := h.LifeOf("p")
	uid := strings.Fields(life)[0]

	// A second device of that name is refused, goes on trying in case the first one leaves, and says why.
	rival := &harness.Agent{T: t, On: ms[2], Name: "edge", Dir: t.TempDir(), Args: []string{"--join", h.Token("--replace", "edge")}}
	harness.Sweep(t, ms[2], rival.Dir)
	rival.Start()
	harness.Eventually(t, 30*time.Second, "the rival says why it is refused", func() error {
		if out := rival.Out.String(); !strings.Contains(out, "node name edge is in use by another device that is alive") || !strings.Contains(out, "--node-name") {
			return fmt.Errorf("it says\n%s", harness.Tail(out, 5))
		}
		return nil
	})
	h.Eventually(20*time.Second, "the refusal is an event of the node", func() error {
		if out := h.Kubectl("get", "events", "-A"); !strings.Contains(out, "NameTaken") {
			return fmt.Errorf("events are\n%s", out)
		}
		return nil
	})
	rival.Stop(syscall.SIGTERM)
	h.Ready("edge")
	if now := h.LifeOf("p"); now != life {
		t.Errorf("the rival touched the pod: %s, before %s", now, life)
	}

	// The node gets another address: it comes back by itself, with its pod as it was, and says the new one.
	for _, args := range [][]string{{"addr", "del", ms[1].IP + "/24", "dev", "eth0"}, {"addr", "add", "10.99.0.77/24", "dev", "eth0"}, {"route", "replace", "default", "via", "10.99.0.254"}} {
		if out, err := ms[1].Command(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	h.Eventually(120*time.Second, "the node tells its new address", func() error {
		if out := h.Kubectl("get", "node", "edge", "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`); out != "10.99.0.77" {
			return fmt.Errorf("it is %s", out)
		}
		return nil
	})
	h.Eventually(60*time.Second, "exec works over the new address", func() error {
		_, err := h.TryKubectl("exec", "p", "--", "/petrel", "version", "--client")
		return err
	})
	if now := h.LifeOf("p"); now != life {
		t.Errorf("the new address touched the pod: %s, before %s", now, life)
	}

	// A deleted node learns so from the hub, and stops its pods.
	h.Kubectl("delete", "node", "edge")
	harness.Eventually(t, 40*time.Second, "the agent says that it was removed", func() error {
		if out := a.Out.String(); !strings.Contains(out, "this node was removed from its cluster") {
			return fmt.Errorf("it says\n%s", harness.Tail(out, 5))
		}
		return nil
	})
	harness.Eventually(t, 40*time.Second, "its pods stop", func() error {
		if pid := harness.ContainerPID(uid); pid != 0 {
			return fmt.Errorf("pid %d", pid)
		}
		return nil
	})
	h.Eventually(60*time.Second, "the cluster forgets the pod", func() error {
		if out := strings.TrimSpace(h.Kubectl("get", "pods", "-o", "name")); out != "" {
			return fmt.Errorf("there is %s", out)
		}
		return nil
	})

	// It joins again with a new token.
	a.Stop(syscall.SIGTERM)
	a.Args = []string{"--join", h.Token()}
	a.Start()
	h.Ready("edge")
	h.Apply(pinned("p", "edge", "b", ""))
	h.Running("p")

	// The card is flashed again: other keys, the old name, a token to replace the node. Any other is not enough.
	node := h.Kubectl("get", "node", "edge", "-o", "jsonpath={.metadata.uid}")
	a.PowerCut()
	thief := &harness.Agent{T: t, On: ms[2], Name: "edge", Dir: t.TempDir(), Args: []string{"--join", h.Token()}}
	harness.Sweep(t, ms[2], thief.Dir)
	thief.Start()
	harness.Eventually(t, 30*time.Second, "a plain token does not replace the node", func() error {
		if out := thief.Out.String(); !strings.Contains(out, "petrel token create --replace edge") {
			return fmt.Errorf("it says\n%s", harness.Tail(out, 5))
		}
		return nil
	})
	thief.Stop(syscall.SIGTERM)
	flashed := h.JoinWith(h.Token("--replace", "edge"), ms[2], "edge")
	if now := h.Kubectl("get", "node", "edge", "-o", "jsonpath={.metadata.uid}"); now != node {
		t.Errorf("the node was made anew: %s, before %s", now, node)
	}
	h.Says(ms[2], "p", "GENERATION=b")
	// The old card, put in again, is not let in.
	a.Args = nil
	a.Start()
	harness.Eventually(t, 40*time.Second, "the old card is refused", func() error {
		if out := a.Out.String(); !strings.Contains(out, "join it again with a new token") {
			return fmt.Errorf("it says\n%s", harness.Tail(out, 5))
		}
		return nil
	})
	if out := flashed.Out.String(); strings.Contains(out, "removed from its cluster") {
		t.Errorf("the new card was thrown out:\n%s", harness.Tail(out, 5))
	}
}

// Weather 3: the hub is killed again and again under a load of writes; what it has acknowledged is there afterwards, and
// revisions only grow.
func TestAcknowledgedWritesSurvive(t *testing.T) {
	t.Parallel()
	h := harness.StartHub(t, harness.Here)
	cfg, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS, cfg.Timeout = -1, 10*time.Second
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const writers, lives = 4, 4
	var mu sync.Mutex
	acked := map[string]string{} // name → value of the last acknowledged write
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			maps := client.CoreV1().ConfigMaps("default")
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("w%d-%d", w, i)
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": "1"}}
				made, err := maps.Create(ctx, cm, metav1.CreateOptions{})
				if err != nil {
					time.Sleep(10 * time.Millisecond) // the hub is being started again
					continue
				}
				mu.Lock()
				acked[name] = "1"
				mu.Unlock()
				made.Data["v"] = "2"
				if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); err == nil {
					mu.Lock()
					acked[name] = "2"
					mu.Unlock()
				}
			}
		})
	}
	for life := range lives {
		before := 0
		h.Eventually(20*time.Second, "writes go on", func() error {
			mu.Lock()
			defer mu.Unlock()
			if before == 0 {
				before = len(acked) + 1
			}
			if len(acked) < before+100*(life+1) {
				return fmt.Errorf("%d", len(acked))
			}
			return nil
		})
		h.Stop(syscall.SIGKILL)
		h.Start()
	}
	stop()
	wg.Wait()
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, cm := range list.Items {
		have[cm.Name] = cm.Data["v"]
	}
	lost := 0
	for name, v := range acked {
		if have[name] < v {
			lost++
			t.Logf("%s: has %q, acknowledged was %q", name, have[name], v)
		}
	}
	t.Logf("%d objects acknowledged in %d lives of the hub", len(acked), lives+1)
	if lost > 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
}
