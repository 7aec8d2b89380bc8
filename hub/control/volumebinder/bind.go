package volumebinder

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// Binding is a claim and its volume as they are when each names the other. Their statuses follow: the binder writes them when it
// sees the binding.
type Binding struct {
	Claim  *corev1.PersistentVolumeClaim
	Volume *corev1.PersistentVolume

	oldClaim  *corev1.PersistentVolumeClaim
	oldVolume *corev1.PersistentVolume // nil: the volume is new
}

// Bind returns the binding of a claim and a volume. What a user has bound stays marked as the user's.
func Bind(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) Binding {
	b := Binding{Claim: bindClaim(c, v.Name), Volume: v.DeepCopy(), oldClaim: c, oldVolume: v}
	if !storage.IsVolumeBoundToClaim(v, c) {
		metav1.SetMetaDataAnnotation(&b.Volume.ObjectMeta, kube.BoundByController, "yes")
	}
	if ref := v.Spec.ClaimRef; ref == nil || ref.Namespace != c.Namespace || ref.Name != c.Name || ref.UID != c.UID {
		b.Volume.Spec.ClaimRef = new(control.ReferenceTo(c))
	}
	return b
}

// bindClaim returns the claim with the name of its volume.
func bindClaim(c *corev1.PersistentVolumeClaim, volume string) *corev1.PersistentVolumeClaim {
	bound := c.DeepCopy()
	if c.Spec.VolumeName != volume {
		bound.Spec.VolumeName = volume
		metav1.SetMetaDataAnnotation(&bound.ObjectMeta, kube.BoundByController, "yes")
	}
	metav1.SetMetaDataAnnotation(&bound.ObjectMeta, kube.BindCompleted, "yes")
	return bound
}

// Provision returns a new volume of the built-in provisioner on a node, bound to its claim. localpath.Refuses must have allowed it.
func Provision(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) Binding {
	v := localpath.Volume(c, class, node)
	v.Spec.ClaimRef = new(control.ReferenceTo(c))
	bound := SelectNode(bindClaim(c, v.Name), node.Name)
	setProvisioner(bound, class.Provisioner)
	return Binding{Claim: bound, Volume: v, oldClaim: c}
}

// SelectNode returns the claim with the node that its volume is wanted on.
func SelectNode(c *corev1.PersistentVolumeClaim, node string) *corev1.PersistentVolumeClaim {
	selected := c.DeepCopy()
	metav1.SetMetaDataAnnotation(&selected.ObjectMeta, kube.SelectedNode, node)
	return selected
}

// setProvisioner writes onto the claim who makes its volume, under the names that provisioners look for.
func setProvisioner(c *corev1.PersistentVolumeClaim, name string) {
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, kube.BetaStorageProvisioner, name)
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, kube.StorageProvisioner, name)
}

// Writes returns what makes the binding, for one commit: the volume first, so that no reader finds a bound claim without it.
func (b Binding) Writes() []control.Write {
	volume := control.Write{Object: b.Volume}
	if b.oldVolume != nil {
		volume.Old = b.oldVolume
	}
	return []control.Write{volume, {Object: b.Claim, Old: b.oldClaim}}
}
