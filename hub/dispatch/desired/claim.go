package desired

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
	"petrel.dev/petrel/internal/wire"
)

// claimVolume returns the volume of a claim that is bound. What nodes get of a volume does not change while a claim has it.
func claimVolume(o kube.Object) (kube.GVK, types.NamespacedName) {
	c := o.(*corev1.PersistentVolumeClaim)
	if _, completed := c.Annotations[kube.BindCompleted]; !completed || c.Status.Phase == corev1.ClaimLost {
		return kube.PersistentVolume, types.NamespacedName{}
	}
	return kube.PersistentVolume, types.NamespacedName{Name: c.Spec.VolumeName}
}

// claimObject returns a claim with its volume: what a node needs to mount it. Without a volume it is not bound.
func claimObject(o kube.Object, parts []kube.Object) (*wire.Object, error) {
	c := o.(*corev1.PersistentVolumeClaim)
	n := kube.NodeClaim{Claim: corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name, UID: c.UID, OwnerReferences: c.OwnerReferences},
		Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: c.Spec.AccessModes, VolumeMode: c.Spec.VolumeMode, VolumeName: c.Spec.VolumeName},
	}}
	for _, p := range parts {
		v := p.(*corev1.PersistentVolume)
		if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID {
			continue // another claim's, whatever this one names
		}
		n.Volume = &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: v.Name, UID: v.UID}, Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: v.Spec.PersistentVolumeSource, VolumeMode: v.Spec.VolumeMode, MountOptions: v.Spec.MountOptions, NodeAffinity: v.Spec.NodeAffinity}}
	}
	return object(wire.KindClaim, c, &n)
}

// reclaimer returns the node that is to remove a volume, "" when none is.
func reclaimer(o kube.Object) string {
	if v := o.(*corev1.PersistentVolume); localpath.Reclaimed(v) {
		return localpath.Node(v)
	}
	return ""
}

func reclaimObject(v *corev1.PersistentVolume) (*wire.Object, error) {
	return object(wire.KindReclaim, v, &wire.Reclaim{Volume: v.Name, Handle: v.Spec.CSI.VolumeHandle})
}
