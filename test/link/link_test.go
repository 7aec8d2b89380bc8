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

func eachBroker(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("embedded", func(t *testing.T) { f(t, "") })
}
