package link_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// A node gets Services joined with their endpoints, its peers, and of ConfigMaps and Secrets only what its own pods
// refer to; changes arrive, and a recreated ConfigMap is another object.
func TestWhatANodeGets(t *testing.T) {
	ns := configMap("shared", "1")
	h := newHub(t, "", ns, configMap("foreign", "x")).start()
	tok := h.token(jointoken.Options{})
	a := newAgent(t, "n1", tok).start()
	b := newAgent(t, "n2", tok).start()
	h.waitConnected("n1")
	h.waitConnected("n2")
	h.client.Put(pod("p1", "n1", withConfigMap("shared")))
	h.client.Put(pod("p2", "n1", withConfigMap("shared"), withConfigMap("late")))
	h.client.Put(pod("p3", "n2", withConfigMap("foreign")))
	h.client.Put(&corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc"}, Spec: corev1.ServiceSpec{ClusterIP: "10.43.0.9"}})
	eventually(t, "pods, config and service arrive", func() bool {
		return a.has(wire.KindPod, "p2") != nil && a.has(wire.KindConfigMap, "shared") != nil && b.has(wire.KindConfigMap, "foreign") != nil &&
			a.has(wire.KindService, "svc") != nil && b.has(wire.KindService, "svc") != nil
	})
	if a.has(wire.KindConfigMap, "foreign") != nil || b.has(wire.KindConfigMap, "shared") != nil {
		t.Error("a node got what its pods do not refer to")
	}
	h.client.Put(configMap("late", "1"))
	h.client.Put(configMap("shared", "2"))
	ready := true
	h.client.Put(&discoveryv1.EndpointSlice{
		TypeMeta:   metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc-1", Labels: map[string]string{discoveryv1.LabelServiceName: "svc"}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.42.7.7"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	})
	node, _ := control.Get[*corev1.Node](h.client, kube.Node, "", "n2")
	node = node.DeepCopy()
	node.Spec.PodCIDRs = []string{"10.42.2.0/24"}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.2"}}
	h.client.Put(node)
	eventually(t, "changes arrive", func() bool {
		s, c := a.has(wire.KindService, "svc"), a.has(wire.KindConfigMap, "shared")
		return a.has(wire.KindConfigMap, "late") != nil && strings.Contains(string(c.Data), `"k":"2"`) && strings.Contains(string(s.Data), "10.42.7.7") &&
			a.has(wire.KindPeer, "n2") != nil
	})
	old := a.has(wire.KindConfigMap, "shared").UID
	h.client.Remove(kube.ConfigMap, "default", "shared")
	again := configMap("shared", "3")
	again.UID = "again"
	h.client.Put(again)
	eventually(t, "the recreated one", func() bool {
		c := a.has(wire.KindConfigMap, "shared")
		return c != nil && c.UID == "again" && c.UID != old
	})
	h.client.Remove(kube.Pod, "default", "p2")
	eventually(t, "what only p2 referred to goes", func() bool { return a.has(wire.KindConfigMap, "late") == nil })
	if a.has(wire.KindConfigMap, "shared") == nil {
		t.Error("what p1 still refers to went with p2")
	}
}

// A store that refuses for a while: reports wait, and none is lost.
func TestStoreRefuses(t *testing.T) {
	h := newHub(t, "")
	var broken atomic.Bool
	h.client.Refuse = func(string, kube.Object, string) error {
		if broken.Load() {
			return errors.New("disk full")
		}
		return nil
	}
	h.start()
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	p := h.client.Put(pod("web", "n1")).(*corev1.Pod)
	broken.Store(true)
	a.podStatus(p, corev1.PodPending)
	a.podStatus(p, corev1.PodRunning)
	time.Sleep(50 * time.Millisecond)
	broken.Store(false)
	eventually(t, "the status is stored", func() bool { return h.pod("web").Status.Phase == corev1.PodRunning })
}

// A large set and a large object pass: many pieces, several batches.
func TestLargeSet(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url)
		for i := range 300 {
			h.client.Put(pod(fmt.Sprint("p", i), "n1", withConfigMap(fmt.Sprint("c", i))))
			h.client.Put(configMap(fmt.Sprint("c", i), randomHex(1000+i)))
		}
		h.client.Put(pod("big", "n1", withConfigMap("big")))
		h.client.Put(configMap("big", randomHex(500_000)))
		h.start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		eventually(t, "all of it arrives", func() bool { return len(a.cache.Desired()) == 2*301+1 })
	})
}

// TestWatchPresence checks that those who watch see presence.
func TestWatchPresence(t *testing.T) {
	h := newHub(t, "").start()
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan string, 16)
	h.d.Watch(ctx, func(node string) { changes <- node })
	if ok, last := h.d.Presence("n1"); ok || !last.IsZero() {
		t.Errorf("a node never heard of: %v %v", ok, last)
	}
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	if got := <-changes; got != "n1" || !h.connected("n1") {
		t.Errorf("change of %q, connected %v", got, h.connected("n1"))
	}
	a.kill()
	if got := <-changes; got != "n1" {
		t.Errorf("change of %q", got)
	}
	if ok, last := h.d.Presence("n1"); ok || last.IsZero() {
		t.Errorf("a dark node: %v %v", ok, last)
	}
	cancel()
}
