package storage

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageutil "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	"k8s.io/kubernetes/pkg/apis/storage/validation"

	"petrel.dev/petrel/hub/resource"
)

// tokensInSecrets recommends a field by which drivers do not get tokens where they could log them.
const tokensInSecrets = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"

func csiDriverKind() *resource.Kind {
	k := resource.Declare(storagev1.SchemeGroupVersion.WithKind("CSIDriver"), "csidrivers", "csidriver")
	k.ClusterScoped()
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	warn := func(d *storage.CSIDriver) []string {
		if len(d.Spec.TokenRequests) > 0 && d.Spec.ServiceAccountTokenInSecrets == nil {
			return []string{tokensInSecrets}
		}
		return nil
	}
	k.Rules = resource.Strategy[storage.CSIDriver]{
		// VolumeLimitScaling is off in Kubernetes 1.36.
		PrepareCreate: func(d *storage.CSIDriver) { d.Spec.PreventPodSchedulingIfMissing = nil },
		PrepareUpdate: func(d, old *storage.CSIDriver) {
			if old.Spec.PreventPodSchedulingIfMissing == nil {
				d.Spec.PreventPodSchedulingIfMissing = nil
			}
			resource.CountChange(&d.ObjectMeta, &old.ObjectMeta, d.Spec, old.Spec)
		},
		ValidateCreate: validation.ValidateCSIDriver,
		ValidateUpdate: validation.ValidateCSIDriverUpdate,
		WarnCreate:     func(_ context.Context, d *storage.CSIDriver) []string { return warn(d) },
		WarnUpdate: func(_ context.Context, d, old *storage.CSIDriver) []string {
			if apiequality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests) {
				return nil
			}
			return warn(d)
		},
		ConditionalUpdate: true,
	}.Rules()
	return k
}

func csiStorageCapacityKind() *resource.Kind {
	k := resource.Declare(storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity"), "csistoragecapacities", "csistoragecapacity")
	k.Columns, k.Inert = resource.NameAndCreation, resource.NothingActs
	k.Rules = resource.Strategy[storage.CSIStorageCapacity]{
		ValidateCreate: func(c *storage.CSIStorageCapacity) field.ErrorList {
			return validation.ValidateCSIStorageCapacity(c, validation.CSIStorageCapacityValidateOptions{})
		},
		ValidateUpdate: func(c, old *storage.CSIStorageCapacity) field.ErrorList {
			// What was accepted once may stay.
			wrong := len(metav1validation.ValidateLabelSelector(old.NodeTopology, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
			errs := validation.ValidateCSIStorageCapacity(c, validation.CSIStorageCapacityValidateOptions{AllowInvalidLabelValueInSelector: wrong})
			return append(errs, validation.ValidateCSIStorageCapacityUpdate(c, old)...)
		},
		WarnCreate: func(_ context.Context, c *storage.CSIStorageCapacity) []string {
			return storageutil.GetWarningsForCSIStorageCapacity(c)
		},
		WarnUpdate: func(_ context.Context, c, _ *storage.CSIStorageCapacity) []string {
			return storageutil.GetWarningsForCSIStorageCapacity(c)
		},
		ConditionalUpdate: true,
	}.Rules()
	return k
}

func volumeAttributesClassKind() *resource.Kind {
	k := resource.Declare(storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass"), "volumeattributesclasses", "volumeattributesclass")
	k.ClusterScoped()
	k.ShortNames = []string{"vac"}
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	k.Rules = resource.Strategy[storage.VolumeAttributesClass]{
		ValidateCreate: validation.ValidateVolumeAttributesClass,
		ValidateUpdate: validation.ValidateVolumeAttributesClassUpdate,
	}.Rules()
	return k
}
