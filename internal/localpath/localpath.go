// Package localpath is what hub, scheduler and node agree on about the built-in provisioner: volumes that are a directory on the
// disk of one node.
//
//	claim ─► scheduler chooses the node ─► Volume: the object, in the commit that binds the pod
//	                                          │
//	               node: makes the directory, DATA/agent/volumes/<volume>, when the first pod mounts it
//	                                          │
//	claim deleted ─► the object is deleted, and stays (Finalizer) ─► node: removes the directory, reports it ─► object gone
//
// A volume is of a CSI driver by form, with the volume's own name as its handle. So no object names a path, and the node decides
// where its volumes are. See docs/storage.md.
package localpath

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

const (
	// Provisioner is the provisioner of StorageClasses whose volumes are made here.
	Provisioner = "petrel.dev/local-path"
	// Driver is the CSI driver's name in the volumes; such names have no slash.
	Driver = "local-path.petrel.dev"
	// Finalizer keeps a volume's object until its node has removed the directory.
	Finalizer = "petrel.dev/local-path"
	// Class is the StorageClass that a new hub starts with.
	Class = "local-path"

	// nodeAttribute of a volume names its node. Attributes cannot be changed.
	nodeAttribute = "petrel.dev/node"
)

// Refuses returns why no volume can be made for a claim of a class, for people; "" when one can.
func Refuses(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) string {
	switch {
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return Provisioner + " makes directories: volumeMode Block is not possible, use Filesystem"
	case slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteMany), slices.Contains(claim.Spec.AccessModes, corev1.ReadOnlyMany):
		return Provisioner + " makes volumes of one node: access modes are ReadWriteOnce or ReadWriteOncePod"
	case claim.Spec.Selector != nil:
		return Provisioner + " makes new volumes: a claim with a selector gets only volumes that exist"
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return Provisioner + " makes empty volumes: it does not know dataSource"
	case claim.Spec.VolumeAttributesClassName != nil && *claim.Spec.VolumeAttributesClassName != "":
		return Provisioner + " knows no volumeAttributesClassName"
	case len(class.MountOptions) > 0:
		return fmt.Sprintf("StorageClass %q: %s has no mount options", class.Name, Provisioner)
	case class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer:
		return fmt.Sprintf("StorageClass %q: %s needs volumeBindingMode WaitForFirstConsumer: the scheduler chooses the node first", class.Name, Provisioner)
	}
	for name := range class.Parameters {
		return fmt.Sprintf("StorageClass %q: %s knows no parameter %q", class.Name, Provisioner, name)
	}
	return ""
}

// Volume returns the volume for a claim on a node, bound to the claim. It has the claim's UID in its name: a claim gets one volume,
// however often this is tried.
func Volume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) *corev1.PersistentVolume {
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	host := node.Labels[corev1.LabelHostname]
	if host == "" {
		host = node.Name
	}
	mode := corev1.PersistentVolumeFilesystem
	name := "pvc-" + string(claim.UID)
	return &corev1.PersistentVolume{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{Finalizer, kube.VolumeProtection},
			Annotations: map[string]string{kube.ProvisionedBy: Provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   slices.Clone(claim.Spec.AccessModes),
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              class.Name,
			VolumeMode:                    &mode,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: Driver, VolumeHandle: name, VolumeAttributes: map[string]string{nodeAttribute: node.Name}}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host}}}}}}},
		},
	}
}

// Node returns the name of the node whose disk a volume is on; "" for volumes that are not this provisioner's.
func Node(v *corev1.PersistentVolume) string {
	if v.Spec.CSI == nil || v.Spec.CSI.Driver != Driver {
		return ""
	}
	return v.Spec.CSI.VolumeAttributes[nodeAttribute]
}

// Reclaimed reports whether a volume's node is to remove the directory: the object is deleted, no claim has it any more, and its
// policy is Delete. With any other policy the data stays.
func Reclaimed(v *corev1.PersistentVolume) bool {
	return v.DeletionTimestamp != nil && v.Status.Phase != corev1.VolumeBound && slices.Contains(v.Finalizers, Finalizer) &&
		v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete && Node(v) != ""
}
