package link_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// A manifest goes out, a status comes home, over each kind of broker.
func TestThereAndBack(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url, configMap("conf", "1")).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{Uses: 1})).start()
		h.waitConnected("n1")

		p := h.client.Put(pod("web", "n1", withConfigMap("conf"))).(*corev1.Pod)
		eventually(t, "the pod arrives with what it refers to", func() bool {
			return a.has(wire.KindPod, "web") != nil && a.has(wire.KindConfigMap, "conf") != nil && a.has(wire.KindNode, "n1") != nil
		})
		a.podStatus(p, corev1.PodRunning)
		eventually(t, "its status is stored", func() bool { return h.pod("web").Status.Phase == corev1.PodRunning })

		node, _ := control.Get[*corev1.Node](h.client, kube.Node, "", "n1")
		if node.Annotations[kube.NodeKeyAnnotation] == "" || node.Labels["zone"] != "a" {
			t.Errorf("node made at join: annotations %v, labels %v", node.Annotations, node.Labels)
		}
		h.client.Remove(kube.Pod, "default", "web")
		eventually(t, "the pod and what it refers to go", func() bool {
			return a.has(wire.KindPod, "web") == nil && a.has(wire.KindConfigMap, "conf") == nil
		})
	})
}

// A cut in between: what changed on both sides meanwhile arrives, nothing twice, and neither side has to start again.
func TestCut(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		p := h.client.Put(pod("stays", "n1")).(*corev1.Pod)
		q := h.client.Put(pod("goes", "n1")).(*corev1.Pod)
		eventually(t, "pods arrive", func() bool { return a.has(wire.KindPod, "stays") != nil && a.has(wire.KindPod, "goes") != nil })

		h.kill()
		a.podStatus(p, corev1.PodRunning)
		a.podStatus(q, corev1.PodRunning)
		a.podStatus(q, corev1.PodFailed)
		h.client.Remove(kube.Pod, "default", "goes")
		h.client.Put(pod("goes", "n1", func(p *corev1.Pod) { p.UID = "second" })) // same name, another pod
		h.client.Put(pod("new", "n1"))
		h.start()
		h.waitConnected("n1")
		eventually(t, "the new set", func() bool {
			o := a.has(wire.KindPod, "goes")
			return o != nil && o.UID == "second" && a.has(wire.KindPod, "new") != nil && a.has(wire.KindPod, "stays") != nil
		})
		eventually(t, "the status said while dark", func() bool { return h.pod("stays").Status.Phase == corev1.PodRunning })
		if got := h.pod("goes").Status.Phase; got != "" {
			t.Errorf("status of a deleted pod went to its namesake: %s", got)
		}
	})
}

// The agent restarts in the dark: what it was told and what it had to say are still there.
func TestAgentRestartInTheDark(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{Uses: 1})).start()
		h.waitConnected("n1")
		p := h.client.Put(pod("web", "n1")).(*corev1.Pod)
		eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "web") != nil })
		h.kill()
		a.podStatus(p, corev1.PodRunning)
		a.kill()
		a.token = "" // only the first join needs it
		a.start()
		if a.has(wire.KindPod, "web") == nil {
			t.Fatal("the set is gone after a restart")
		}
		h.start()
		h.waitConnected("n1")
		eventually(t, "the status said in the dark", func() bool { return h.pod("web").Status.Phase == corev1.PodRunning })
	})
}
