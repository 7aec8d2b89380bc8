package dispatch

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
	"petrel.dev/petrel/internal/wire"
)

// planVolume plans what a node reports of a volume that it was to remove: the object goes with its finalizer, or an Event has the
// reason why not. Only the volume's own node may report it, and only while it is to be removed.
func (i *intake) planVolume(r report) changes {
	var rep wire.VolumeReport
	if err := json.Unmarshal(r.put.Data, &rep); err != nil {
		return unread("it cannot be read: %v", err)
	}
	v, ok := control.Get[*corev1.PersistentVolume](i.client, kube.PersistentVolume, "", rep.Volume)
	if !ok || string(v.UID) != r.put.UID || localpath.Node(v) != r.node || !localpath.Reclaimed(v) {
		return changes{}
	}
	if !rep.Gone {
		return changes{writes: i.volumeEvent(r.node, v, rep.Error)}
	}
	next := v.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == localpath.Finalizer })
	return changes{writes: []control.Write{{Object: next, Old: v}}}
}

// volumeEvent returns the Event of a failure; none when there is one of it. Its name follows from what it says, so that a report that
// comes again makes no second one.
func (i *intake) volumeEvent(node string, v *corev1.PersistentVolume, why string) []control.Write {
	message := fmt.Sprintf("node %s cannot remove the directory of this volume, and tries again: %s", node, why)
	if len(message) > maxEventMessage {
		message = message[:maxEventMessage-3] + "..."
	}
	h := fnv.New64a()
	h.Write([]byte(string(v.UID) + message))
	now := metav1.Now()
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: fmt.Sprintf("%s.%x", v.Name, h.Sum64())},
		InvolvedObject: control.ReferenceTo(v), Reason: "VolumeFailedDelete", Message: message, Type: corev1.EventTypeWarning, Count: 1,
		FirstTimestamp: now, LastTimestamp: now,
	}
	if _, ok := i.client.Get(kube.Event, e.Namespace, e.Name); ok {
		return nil
	}
	own(e, node)
	return []control.Write{{Object: e}}
}
