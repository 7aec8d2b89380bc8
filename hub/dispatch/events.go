package dispatch

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// nodeComponent is the source component of a node's Events.
const nodeComponent = "kubelet"

// planEvent plans an Event. A node may report Events about itself and about pods that are bound to it, in their namespace, and change none
// but its own.
func (i *intake) planEvent(r report) changes {
	e := &corev1.Event{}
	if err := json.Unmarshal(r.put.Data, e); err != nil {
		return unread("it cannot be read: %v", err)
	}
	about := &e.InvolvedObject
	switch about.Kind {
	case "Node":
		if about.Name != r.node {
			return unread("it is about node %.100q", about.Name)
		}
		about.Namespace = ""
		e.Namespace = metav1.NamespaceDefault
	case "Pod":
		pod, ok := control.Get[*corev1.Pod](i.client, kube.Pod, about.Namespace, about.Name)
		if !ok || about.UID != pod.UID {
			return changes{} // the pod is gone
		}
		if pod.Spec.NodeName != r.node || e.Namespace != about.Namespace {
			return unread("it is about pod %.100s/%.100s, which is not this node's, or in another namespace", about.Namespace, about.Name)
		}
	default:
		return unread("it is about a %.100q, a node may report of pods and itself", about.Kind)
	}
	own(e, r.node)
	old, ok := control.Get[*corev1.Event](i.client, kube.Event, e.Namespace, e.Name)
	if !ok {
		return changes{writes: []control.Write{{Object: e}}}
	}
	if !sameReporter(old, e) {
		return unread("an Event of the name %.200s exists that is not this node's", e.Name)
	}
	e.ObjectMeta = *old.ObjectMeta.DeepCopy()
	return changes{writes: []control.Write{{Object: e, Old: old}}}
}

// own sets who reports an Event, and leaves nothing of its metadata but its name.
func own(e *corev1.Event, node string) {
	e.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}
	e.ObjectMeta = metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}
	e.Source = corev1.EventSource{Component: nodeComponent, Host: node}
	if e.ReportingController != "" || e.ReportingInstance != "" {
		e.ReportingController, e.ReportingInstance = nodeComponent, node
	}
	e.Related = nil
}

// sameReporter reports whether a stored Event is an earlier form of e: of the same node, about the same object.
func sameReporter(old, e *corev1.Event) bool {
	a, b := old.InvolvedObject, e.InvolvedObject
	return old.Source == e.Source && a.Kind == b.Kind && a.Namespace == b.Namespace && a.Name == b.Name && a.UID == b.UID
}
