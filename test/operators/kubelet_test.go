package operators

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// kubelet reports every pod's status as a node's agent would that has the images: pods that run once have succeeded, all others
// are ready. It stands in for nodes, since what is tested here is between a client and the API; containers run in test/e2e.
func (h *hub) kubelet() {
	factory := informers.NewSharedInformerFactory(h.client, 0)
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { h.report(o.(*corev1.Pod)) },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	factory.Start(h.t.Context().Done())
	h.t.Cleanup(factory.Shutdown)
}

func (h *hub) report(pod *corev1.Pod) {
	status := corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
	}}
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		status = corev1.PodStatus{Phase: corev1.PodSucceeded}
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		_, err = h.client.CoreV1().Pods(pod.Namespace).Patch(h.t.Context(), pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil && h.t.Context().Err() == nil {
		h.t.Errorf("status of pod %s: %v", pod.Name, err)
	}
}

// node makes a Node with a label and reports it ready, as its agent would. It has no session with the hub, which calls it dark after
// 40 s: make it when all else is there.
func (h *hub) node(name, label string) {
	h.t.Helper()
	h.apply("{apiVersion: v1, kind: Node, metadata: {name: " + name + "}}")
	h.kubectl("label", "node/"+name, label)
	h.kubectl("patch", "node/"+name, "--subresource=status", "--type=merge", "-p", `{"status":{
		"conditions":[{"type":"Ready","status":"True","reason":"Standin","message":"a stand-in"}],
		"capacity":{"cpu":"4","memory":"4Gi","pods":"110"},"allocatable":{"cpu":"4","memory":"4Gi","pods":"110"}}}`)
}
