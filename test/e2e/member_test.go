package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Weather 8 and 9: who is a member. A second device cannot take a live one's name; a node that is deleted stops its pods
// and waits; a device without its old keys takes its old name over with a new token; a node's address changes.
func TestMembers(t *testing.T) { eachBroker(t, "member", 3, members) }

func members(t *testing.T, ms []machine, h *hub) {
	a := h.join(ms[1], "edge")
	h.apply(fmt.Sprintf(conf, "x"))
	h.apply(pinned("p", "edge", "a", ""))
	h.running("p")
	life := h.lifeOf("p")
	uid := strings.Fields(life)[0]

	// A second device of that name is refused, goes on trying in case the first one leaves, and says why.
	rival := &agent{t: t, on: ms[2], name: "edge", dir: t.TempDir(), args: []string{"--join", h.token()}}
	sweep(t, ms[2], rival.dir)
	rival.start()
	eventually(t, 30*time.Second, "the rival says why it is refused", func() error {
		if out := rival.out.String(); !strings.Contains(out, "node name edge is in use by another device that is alive") || !strings.Contains(out, "--node-name") {
			return fmt.Errorf("it says\n%s", tail(out, 5))
		}
		return nil
	})
	h.eventually(20*time.Second, "the refusal is an event of the node", func() error {
		if out := h.k("get", "events", "-A"); !strings.Contains(out, "NameTaken") {
			return fmt.Errorf("events are\n%s", out)
		}
		return nil
	})
	rival.stop(syscall.SIGTERM)
	h.ready("edge")
	if now := h.lifeOf("p"); now != life {
		t.Errorf("the rival touched the pod: %s, before %s", now, life)
	}

	// The node gets another address: it comes back by itself, with its pod as it was, and says the new one.
	for _, args := range [][]string{{"addr", "del", ms[1].ip + "/24", "dev", "eth0"}, {"addr", "add", "10.99.0.77/24", "dev", "eth0"}, {"route", "replace", "default", "via", "10.99.0.254"}} {
		if out, err := ms[1].command(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	h.eventually(120*time.Second, "the node tells its new address", func() error {
		if out := h.k("get", "node", "edge", "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`); out != "10.99.0.77" {
			return fmt.Errorf("it is %s", out)
		}
		return nil
	})
	h.eventually(60*time.Second, "exec works over the new address", func() error {
		_, err := h.try("exec", "p", "--", "/petrel", "version", "--client")
		return err
	})
	if now := h.lifeOf("p"); now != life {
		t.Errorf("the new address touched the pod: %s, before %s", now, life)
	}

	// A deleted node is told so, and stops its pods.
	h.k("delete", "node", "edge")
	eventually(t, 40*time.Second, "the agent says that it was removed", func() error {
		if out := a.out.String(); !strings.Contains(out, "this node was removed from its cluster") {
			return fmt.Errorf("it says\n%s", tail(out, 5))
		}
		return nil
	})
	eventually(t, 40*time.Second, "its pods stop", func() error {
		if pid := containerPID(uid); pid != 0 {
			return fmt.Errorf("pid %d", pid)
		}
		return nil
	})
	h.eventually(60*time.Second, "the cluster forgets the pod", func() error {
		if out := strings.TrimSpace(h.k("get", "pods", "-o", "name")); out != "" {
			return fmt.Errorf("there is %s", out)
		}
		return nil
	})

	// It joins again with a new token.
	a.stop(syscall.SIGTERM)
	a.args = []string{"--join", h.token()}
	a.start()
	h.ready("edge")
	h.apply(pinned("p", "edge", "b", ""))
	h.running("p")

	// The card is flashed anew: other keys, the old name, a new token.
	node := h.k("get", "node", "edge", "-o", "jsonpath={.metadata.uid}")
	a.powerCut()
	flashed := h.join(ms[2], "edge")
	if now := h.k("get", "node", "edge", "-o", "jsonpath={.metadata.uid}"); now != node {
		t.Errorf("the node was made anew: %s, before %s", now, node)
	}
	h.says(ms[2], "p", "GENERATION=b")
	// The old card, put in again, is not let in.
	a.args = nil
	a.start()
	eventually(t, 40*time.Second, "the old card is refused", func() error {
		if out := a.out.String(); !strings.Contains(out, "join it again with a new token") {
			return fmt.Errorf("it says\n%s", tail(out, 5))
		}
		return nil
	})
	if out := flashed.out.String(); strings.Contains(out, "removed from its cluster") {
		t.Errorf("the new card was thrown out:\n%s", tail(out, 5))
	}
}

// Weather 3: the hub is killed again and again under a load of writes; what it has acknowledged is there afterwards, and
// revisions only grow.
func TestAcknowledgedWritesSurvive(t *testing.T) {
	t.Parallel()
	h := startHub(t, here)
	cfg, err := clientcmd.BuildConfigFromFlags("", h.kubeconfig)
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
		h.eventually(20*time.Second, "writes go on", func() error {
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
		h.stop(syscall.SIGKILL)
		h.start()
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
