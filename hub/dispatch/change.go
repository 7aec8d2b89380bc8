package dispatch

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/images"
	"petrel.dev/petrel/internal/kube"
)

// change passes one change of the feed to every part that it concerns.
func (d *Dispatch) change(now time.Time, c control.Change) {
	for _, o := range []kube.Object{c.Old, c.New} {
		if o != nil {
			d.revision = max(d.revision, revisionOf(o))
		}
	}
	switch c.GVK {
	case kube.Node:
		d.changeNode(now, as[*corev1.Node](c.Old), as[*corev1.Node](c.New))
	case kube.Pod:
		d.changeTokens(as[*corev1.Pod](c.Old), as[*corev1.Pod](c.New))
	}
	d.set.Change(now, c)
	d.spread()
	if c.GVK == kube.Pod {
		d.wakeAt(d.images.Change(now, as[*corev1.Pod](c.Old), as[*corev1.Pod](c.New)))
	}
}

// changeNode updates which devices are known, and ends the session of one that has lost its Node.
func (d *Dispatch) changeNode(now time.Time, old, new *corev1.Node) {
	device, lost := d.known.Change(old, new)
	if !lost {
		return
	}
	if n := d.byName[old.Name]; n != nil && device == n.id {
		why := "the Node " + old.Name + " was deleted from the hub; join again with a new token to come back"
		if new != nil {
			why = "another device has joined as " + old.Name + " and taken its place"
		}
		d.removed(now, n, why)
	}
}

// changeTokens keeps the tokens of connected nodes' pods up to date with the pods. Those of other nodes are made up to date when a
// session opens.
func (d *Dispatch) changeTokens(old, new *corev1.Pod) {
	if d.tokens == nil {
		return
	}
	if old != nil && (new == nil || new.Spec.NodeName != old.Spec.NodeName || new.UID != old.UID) {
		if n := d.session(old.Spec.NodeName); n != nil {
			for _, id := range n.tokens.Drop(old.UID) {
				d.remove(n, id)
			}
		}
	}
	if new == nil {
		return
	}
	if n := d.session(new.Spec.NodeName); n != nil {
		for _, r := range n.tokens.Want(new) {
			d.makeToken(n, r)
		}
	}
}

// usesImage reports whether a pod with an image is bound to a node.
func (d *Dispatch) usesImage(node, image string) bool {
	for p := range d.set.Pods(node) {
		if images.Used(p, image) {
			return true
		}
	}
	return false
}

func as[T kube.Object](o kube.Object) T {
	t, _ := o.(T)
	return t
}

func revisionOf(o kube.Object) uint64 {
	v, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return v
}
