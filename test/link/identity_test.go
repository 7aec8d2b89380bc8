package link_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

func (a *agent) problem(part string) func() bool {
	return func() bool { return strings.Contains(a.link.Status().Problem, part) }
}

// A second device with the name of a live one is refused, and told by whom.
func TestNameTaken(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		tok := h.token(jointoken.Options{})
		a := newAgent(t, "n1", tok).start()
		h.waitConnected("n1")
		b := newAgent(t, "n1", tok).start()
		eventually(t, "the second device is refused", b.problem("belongs to another device ("+wire.NodeID(a.link.Status().Device)))
		if !strings.Contains(b.link.Status().Problem, "petrel token create --replace n1") {
			t.Errorf("the way out is not said: %s", b.link.Status().Problem)
		}
		b.kill()
		c := newAgent(t, "n1", h.token(jointoken.Options{Uses: 1, Replace: "n1"})).start()
		eventually(t, "a token to replace replaces none that is alive", c.problem("in use by another device that is alive ("+wire.NodeID(a.link.Status().Device)))
		if !h.connected("n1") || !a.link.Status().Connected {
			t.Error("the first device lost its session")
		}
		eventually(t, "the refusal is an event", func() bool {
			for _, o := range h.client.Stored(kube.Event, "default") {
				if e := o.(*corev1.Event); e.Reason == "NameTaken" && e.InvolvedObject.Name == "n1" {
					return true
				}
			}
			return false
		})
	})
}

// A cloned card: the same key twice. The copy is refused and named, the original stays.
func TestClone(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		b := newAgent(t, "n1", "")
		for _, f := range []string{"identity", "hub"} {
			raw, err := os.ReadFile(filepath.Join(a.dir, f))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(b.dir, f), raw, 0o600))
		}
		b.start()
		eventually(t, "the clone is refused", b.problem("a cloned card or image"))
		p := h.client.Put(pod("web", "n1")).(*corev1.Pod)
		eventually(t, "the original goes on", func() bool { return a.has(wire.KindPod, "web") != nil })
		a.podStatus(p, corev1.PodRunning)
		eventually(t, "in both directions", func() bool { return h.pod("web").Status.Phase == corev1.PodRunning })
		if b.has(wire.KindPod, "web") != nil {
			t.Error("the clone was told what to run")
		}
	})
}

// Deleting the Node throws the device out: it stops its pods and waits for a new token.
func TestRemoved(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		h.client.Put(pod("web", "n1"))
		eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "web") != nil })
		h.client.Remove(kube.Node, "", "n1")
		eventually(t, "the agent knows", func() bool { s := a.link.Status(); return s.Removed && strings.Contains(s.Problem, "deleted") })
		if n := len(a.cache.Desired()); n != 0 {
			t.Errorf("%d objects are still desired", n)
		}
		a.kill()
		a.token = h.token(jointoken.Options{Uses: 1})
		a.start()
		h.waitConnected("n1")
		eventually(t, "it is back with its pod", func() bool { return a.has(wire.KindPod, "web") != nil })
	})
}

// Deleted while dark: the device learns it at the next contact. A hub whose store is another than the one that welcomed it
// (restored from before it joined, lost and made new, put back by hand) says nothing about it: the device keeps its pods,
// however many writes that store has seen since and however often the device comes back.
func TestUnknownToTheHub(t *testing.T) {
	for _, c := range []struct {
		name    string
		history string // of the store afterwards
		fresh   bool   // the store is one from before
		writes  int    // to it before the device comes
		keeps   bool
		says    string
	}{
		{name: "deleted", history: "first", writes: 0},
		{name: "restored", history: "second", fresh: true, writes: 120, keeps: true, says: "restored from a backup, or begun anew"},
		{name: "begun anew", history: "other", fresh: true, writes: 0, keeps: true, says: "restored from a backup, or begun anew"},
		{name: "put back by hand", history: "first", fresh: true, writes: 0, keeps: true, says: "an older copy of it was put back"},
		{name: "unnamed", history: "", writes: 120, keeps: true, says: "does not say which history"},
	} {
		t.Run(c.name, func(t *testing.T) { unknownToTheHub(t, c.history, c.fresh, c.writes, c.keeps, c.says) })
	}
}

func unknownToTheHub(t *testing.T, history string, fresh bool, writes int, keeps bool, says string) {
	h := newHub(t, "").start()
	h.client.Put(configMap("earlier", "x"))
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	h.client.Put(pod("web", "n1"))
	eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "web") != nil })
	a.kill()
	a.token = ""
	h.kill()
	h.history = history
	if fresh {
		h.client = newHub(t, "").client
	} else {
		h.client.Remove(kube.Node, "", "n1")
	}
	for i := range writes {
		h.client.Put(configMap("later", strconv.Itoa(i)))
	}
	h.start()
	for range 3 { // it comes back again and again
		a.start()
		eventually(t, "the device is refused", a.problem("join it again with a new token"))
		if s := a.link.Status(); a.has(wire.KindPod, "web") != nil != keeps || s.Removed == keeps || !strings.Contains(s.Problem, says) {
			t.Fatalf("want pods kept: %v; pod desired %v, %+v", keeps, a.has(wire.KindPod, "web") != nil, s)
		}
		a.kill()
	}
	// Under a new token it is a node again, and from then on of that history.
	a.token = h.token(jointoken.Options{Uses: 1})
	h.client.Put(pod("web", "n1"))
	a.start()
	h.waitConnected("n1")
	eventually(t, "the pod stays", func() bool { return a.has(wire.KindPod, "web") != nil })
	if history == "" {
		return
	}
	node, _ := control.Get[*corev1.Node](h.client, kube.Node, "", "n1")
	eventually(t, "the device has what this store says", func() bool {
		o := a.has(wire.KindNode, "n1") // which may have come with an earlier life: it has to be welcome in this one too
		return o != nil && o.UID == string(node.UID) && a.link.Status().Connected
	})
	a.kill()
	a.token = ""
	eventually(t, "n1 is dark", func() bool { return !h.connected("n1") })
	h.client.Remove(kube.Node, "", "n1")
	a.start()
	eventually(t, "deleted for good", func() bool { return a.link.Status().Removed })
	if a.has(wire.KindPod, "web") != nil {
		t.Error("the Node was deleted, and the pod is still desired")
	}
}

// A re-imaged device joins under its old name with a token that is made to replace it; the old key is no longer good. Any
// other token is not enough, however dark the node is, and neither is one for another node; nothing is spent by trying.
func TestReimaged(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		old := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		h.client.Put(pod("web", "n1"))
		eventually(t, "the pod arrives", func() bool { return old.has(wire.KindPod, "web") != nil })
		old.kill()
		eventually(t, "n1 is dark", func() bool { return !h.connected("n1") })
		before, _ := control.Get[*corev1.Node](h.client, kube.Node, "", "n1")
		plain := h.token(jointoken.Options{Uses: 1})
		for _, c := range []struct{ token, problem string }{
			{plain, "petrel token create --replace n1"},
			{h.token(jointoken.Options{Uses: 1, Replace: "n2"}), "takes the place of node n2"},
		} {
			thief := newAgent(t, "n1", c.token).start()
			eventually(t, c.problem, thief.problem(c.problem))
			thief.kill()
		}
		if now, _ := control.Get[*corev1.Node](h.client, kube.Node, "", "n1"); now.ResourceVersion != before.ResourceVersion {
			t.Error("the Node was changed by who may not")
		}
		newAgent(t, "n3", plain).start()
		h.waitConnected("n3") // its one use was not spent
		fresh := newAgent(t, "n1", h.token(jointoken.Options{Uses: 1, Replace: "n1"})).start()
		h.waitConnected("n1")
		eventually(t, "the pod arrives at the new card", func() bool { return fresh.has(wire.KindPod, "web") != nil })
		after, _ := control.Get[*corev1.Node](h.client, kube.Node, "", "n1")
		if after.UID != before.UID || after.Annotations[kube.NodeKeyAnnotation] == before.Annotations[kube.NodeKeyAnnotation] {
			t.Errorf("node before %v %v, after %v %v", before.UID, before.Annotations, after.UID, after.Annotations)
		}
		old.token = ""
		old.start()
		eventually(t, "the old card is refused", old.problem("join it again with a new token"))
	})
}

func TestTokenRefusals(t *testing.T) {
	h := newHub(t, "").start()
	once := h.token(jointoken.Options{Uses: 1})
	newAgent(t, "n1", once).start()
	h.waitConnected("n1")
	deleted := h.token(jointoken.Options{})
	parsed, err := jointoken.Parse(deleted)
	must(t, err)
	h.client.Remove(kube.Secret, jointoken.SecretNamespace, jointoken.SecretName(parsed.TokenID))
	expired, secret, err := jointoken.Mint(parsed.Cluster, jointoken.Options{TTL: time.Minute}, time.Now().Add(-time.Hour), nil)
	must(t, err)
	h.client.Put(secret)
	wrongPin := parsed
	wrongPin.Pin[0] ^= 1
	for _, c := range []struct{ name, token, problem string }{
		{"used-up", once, "used up"},
		{"deleted", deleted, "no such join token"},
		{"expired", expired.String(), "expired"},
		{"wrong-pin", wrongPin.String(), "another hub at this address"},
		{"Bad_Name", h.token(jointoken.Options{}), "cannot be a node name"},
	} {
		a := newAgent(t, c.name, c.token).start()
		eventually(t, c.name, a.problem(c.problem))
		a.kill()
	}
	if n := len(h.client.Stored(kube.Node, "")); n != 1 {
		t.Errorf("%d Nodes, want 1", n)
	}
}
