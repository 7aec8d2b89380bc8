package classes

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// DefaultClaim gives a new claim that names no class the default StorageClass. The name "" asks for none.
func (c *Classes) DefaultClaim(_ context.Context, a *registry.AdmissionRequest) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || a.Operation != registry.OpCreate || a.Subresource != "" || claim.Spec.StorageClassName != nil {
		return nil
	}
	if _, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return nil
	}
	if class := c.byDefault(kube.StorageClass, kube.DefaultStorage, kube.BetaDefaultStorage); class != nil {
		name := class.GetName()
		claim.Spec.StorageClassName = &name
	}
	return nil
}

// Protect gives new claims and volumes the finalizer that keeps them while they are in use; hub/control/volumeprotection takes
// it away again.
func (c *Classes) Protect(_ context.Context, a *registry.AdmissionRequest) error {
	if a.Operation != registry.OpCreate || a.Subresource != "" {
		return nil
	}
	finalizer := ""
	switch a.Object.(type) {
	case *corev1.PersistentVolumeClaim:
		finalizer = kube.ClaimProtection
	case *corev1.PersistentVolume:
		finalizer = kube.VolumeProtection
	default:
		return nil
	}
	if have := a.Object.GetFinalizers(); !slices.Contains(have, finalizer) {
		a.Object.SetFinalizers(append(have, finalizer))
	}
	return nil
}

// CheckResize refuses to let a claim grow that is not bound, or whose class does not allow it.
func (c *Classes) CheckResize(_ context.Context, a *registry.AdmissionRequest) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	old, had := a.Old.(*corev1.PersistentVolumeClaim)
	if !ok || !had || a.Operation != registry.OpUpdate || a.Subresource != "" ||
		claim.Spec.Resources.Requests.Storage().Cmp(*old.Spec.Resources.Requests.Storage()) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		//lint:ignore ST1005 upstream's text
		return refuse.Forbidden(a, errors.New("Only bound persistent volume claims can be expanded"))
	}
	name := storageClassOf(claim)
	class, ok := control.Get[*storagev1.StorageClass](c.objects, kube.StorageClass, "", name)
	if !ok || name != storageClassOf(old) || class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
		return refuse.Forbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
	}
	if class.Provisioner == localpath.Provisioner {
		return refuse.Forbidden(a, fmt.Errorf("volumes of %s have no size of their own: the claim may use what the disk of its node has, whatever it asks for", class.Provisioner))
	}
	return nil
}

// storageClassOf returns the name of a claim's class, "" for none.
func storageClassOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}
