package kube

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
)

// Annotations by which Kubernetes' components agree about claims and volumes.
const (
	// BindCompleted on a claim says that it has been bound: from then on it never gets another volume.
	BindCompleted = "pv.kubernetes.io/bind-completed"
	// BoundByController on a claim or a volume says that its reference to the other was not made by a user.
	BoundByController = "pv.kubernetes.io/bound-by-controller"
	// ProvisionedBy on a volume names the provisioner that made it, and that removes it.
	ProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// SelectedNode on a claim names the node that the scheduler wants its volume on.
	SelectedNode = "volume.kubernetes.io/selected-node"
	// StorageProvisioner, and the older BetaStorageProvisioner, on a claim name the provisioner that is to make its volume.
	StorageProvisioner     = "volume.kubernetes.io/storage-provisioner"
	BetaStorageProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
)

// ClaimIndex is the index of Pods by the claims that they name ("namespace/name"), and of PersistentVolumes by the claim that they
// are for.
const ClaimIndex = "claim"

// VolumeClaim returns the name of the claim that a volume of a pod is of, "" for other volumes. ephemeral: the claim is made for
// the pod, and is the pod's only if the pod is its controller.
func VolumeClaim(pod *corev1.Pod, v *corev1.Volume) (name string, ephemeral bool) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName, false
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name, true // Kubernetes names the claim of an ephemeral volume so
	}
	return "", false
}

// PodClaims returns the names of the claims of a pod, ephemeral volumes' included.
func PodClaims(pod *corev1.Pod) (names []string) {
	for i := range pod.Spec.Volumes {
		if name, _ := VolumeClaim(pod, &pod.Spec.Volumes[i]); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// CheckOwnClaim returns an error unless the claim of an ephemeral volume was made for the pod.
func CheckOwnClaim(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) error {
	if claim.Namespace != pod.Namespace || !metav1.IsControlledBy(claim, pod) {
		return fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, claim.Name, pod.Namespace, pod.Name)
	}
	return nil
}

// NodeClaim is a claim as a node gets it: without a volume until it is bound.
type NodeClaim struct {
	Claim  corev1.PersistentVolumeClaim `json:"claim"`
	Volume *corev1.PersistentVolume     `json:"volume,omitempty"`
}

// VolumeReaches reports whether a volume's affinity lets it be used on a node.
func VolumeReaches(v *corev1.PersistentVolume, node *corev1.Node) bool {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return true
	}
	ok, err := schedulingv1.MatchNodeSelectorTerms(node, v.Spec.NodeAffinity.Required)
	return ok && err == nil
}

// ClaimKeys returns what ClaimIndex lists a Pod or a PersistentVolume under.
func ClaimKeys(obj Object) (keys []string) {
	switch o := obj.(type) {
	case *corev1.Pod:
		for _, name := range PodClaims(o) {
			keys = append(keys, o.Namespace+"/"+name)
		}
	case *corev1.PersistentVolume:
		if ref := o.Spec.ClaimRef; ref != nil {
			keys = append(keys, ref.Namespace+"/"+ref.Name)
		}
	}
	return keys
}
