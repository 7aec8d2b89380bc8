package volumebinder

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// ofVolume decides about a volume.
func (w world) ofVolume(v *corev1.PersistentVolume) (a actions) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" { // free, or kept for a claim that does not have it yet
		if !w.finish(v, &a) {
			a.setVolume(v, corev1.VolumeAvailable, "")
		}
		return a
	}
	c, ok := control.Get[*corev1.PersistentVolumeClaim](w, kube.PersistentVolumeClaim, ref.Namespace, ref.Name)
	provisioned := v.Annotations[kube.ProvisionedBy] != "" && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	switch {
	case !ok || c.UID != ref.UID:
		w.release(v, &a)
	case c.Spec.VolumeName == "":
		if storage.CheckVolumeModeMismatches(&c.Spec, &v.Spec) {
			a.say(v, corev1.EventTypeWarning, reasonMismatch,
				"Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", c.Name)
			a.say(c, corev1.EventTypeWarning, reasonMismatch,
				"Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", v.Name)
		} // otherwise the claim, which comes up with each change of the volume, gets it
	case c.Spec.VolumeName == v.Name:
		a.setVolume(v, corev1.VolumeBound, "")
	case provisioned:
		w.release(v, &a)
	default:
		a.writes = append(a.writes, unbind(v))
	}
	return a
}

// unbind takes back a binding that the claim does not return: what the controller has bound is free again, what a user has bound
// stays kept for the claim of that name.
func unbind(v *corev1.PersistentVolume) control.Write {
	next := v.DeepCopy()
	if _, ours := v.Annotations[kube.BoundByController]; ours {
		next.Spec.ClaimRef = nil
		delete(next.Annotations, kube.BoundByController)
	} else {
		next.Spec.ClaimRef.UID = ""
	}
	return control.Write{Object: next, Old: v}
}

// release marks a volume whose claim is gone, and does what its reclaim policy says. What has failed stays so, for people to see.
func (w world) release(v *corev1.PersistentVolume, a *actions) {
	if v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed {
		a.setVolume(v, corev1.VolumeReleased, "")
		return // its own change brings the volume here again
	}
	if w.finish(v, a) {
		return
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRecycle:
		a.fail(v, reasonFailedRecycle, "No recycler plugin found for the volume!")
	case corev1.PersistentVolumeReclaimDelete:
		switch by := v.Annotations[kube.ProvisionedBy]; {
		case localpath.Node(v) != "":
			if v.DeletionTimestamp == nil {
				a.delete = v
			}
		case by != "": // its provisioner deletes it
		default:
			a.fail(v, reasonFailedDelete, `error getting deleter volume plugin for volume "`+v.Name+`": no deletable volume plugin matched`)
		}
	}
}

func (a *actions) fail(v *corev1.PersistentVolume, reason, why string) {
	if v.Status.Phase == corev1.VolumeFailed && v.Status.Message == why {
		return
	}
	a.setVolume(v, corev1.VolumeFailed, why)
	a.say(v, corev1.EventTypeWarning, reason, "%s", why)
}

// finish lets the object of a deleted volume of the built-in provisioner go when its node has nothing to do for it. It reports whether it
// did.
func (w world) finish(v *corev1.PersistentVolume, a *actions) bool {
	if v.DeletionTimestamp == nil || !slices.Contains(v.Finalizers, localpath.Finalizer) {
		return false
	}
	if localpath.Reclaimed(v) {
		node := localpath.Node(v)
		if _, ok := w.Get(kube.Node, "", node); ok {
			return false // the node reports when the directory is gone, however long it is dark
		}
		a.say(v, corev1.EventTypeWarning, reasonDelete,
			"Node %s was deleted before it removed the directory of this volume: what is still on its disk stays there", node)
	}
	next := v.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == localpath.Finalizer })
	a.writes = append(a.writes, control.Write{Object: next, Old: v})
	return true
}
