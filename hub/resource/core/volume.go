package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	volumeutil "k8s.io/kubernetes/pkg/api/persistentvolume"
	claimutil "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	volumevalidation "k8s.io/kubernetes/pkg/volume/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

func persistentVolumeKind() *resource.Kind {
	type volume = api.PersistentVolume
	k := resource.Declare(corev1.SchemeGroupVersion.WithKind("PersistentVolume"), "persistentvolumes", "persistentvolume")
	k.ClusterScoped()
	k.ShortNames = []string{"pv"}
	k.ReturnDeletedObject = true
	k.Indexes[kube.ClaimIndex] = kube.ClaimKeys
	validate := func(v, old *volume) (field.ErrorList, validation.PersistentVolumeSpecValidationOptions) {
		opts := validation.ValidationOptionsForPersistentVolume(v, old)
		return append(validation.ValidatePersistentVolume(v, opts), volumevalidation.ValidatePersistentVolume(v)...), opts
	}
	k.Rules = resource.Strategy[volume]{
		PrepareCreate: func(v *volume) {
			now := metav1.Now().Rfc3339Copy()
			v.Status = api.PersistentVolumeStatus{Phase: api.VolumePending, LastPhaseTransitionTime: &now}
			volumeutil.DropDisabledSpecFields(&v.Spec, nil)
		},
		PrepareUpdate: func(v, old *volume) {
			v.Status = *old.Status.DeepCopy()
			volumeutil.DropDisabledSpecFields(&v.Spec, &old.Spec)
		},
		ValidateCreate: func(v *volume) field.ErrorList {
			errs, _ := validate(v, nil)
			return errs
		},
		ValidateUpdate: func(v, old *volume) field.ErrorList {
			errs, opts := validate(v, old)
			return append(errs, validation.ValidatePersistentVolumeUpdate(v, old, opts)...)
		},
		WarnCreate: func(_ context.Context, v *volume) []string { return volumeutil.GetWarningsForPersistentVolume(v) },
		WarnUpdate: func(_ context.Context, v, _ *volume) []string { return volumeutil.GetWarningsForPersistentVolume(v) },
	}.Rules()
	k.Subresources["status"] = resource.Strategy[volume]{
		PrepareUpdate: func(v, old *volume) {
			copied := old.DeepCopy()
			v.Spec = copied.Spec
			at, before := v.Status.LastPhaseTransitionTime, copied.Status.LastPhaseTransitionTime
			switch moved := v.Status.Phase != old.Status.Phase; {
			case !moved && at == nil:
				v.Status.LastPhaseTransitionTime = before
			case moved && (at == nil || at.Equal(before)): // the writer did not think of it
				now := metav1.Now().Rfc3339Copy()
				v.Status.LastPhaseTransitionTime = &now
			}
		},
		ValidateUpdate: validation.ValidatePersistentVolumeStatusUpdate,
	}.Status(k)
	return k
}

func persistentVolumeClaimKind() *resource.Kind {
	type claim = api.PersistentVolumeClaim
	k := resource.Declare(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), "persistentvolumeclaims", "persistentvolumeclaim")
	k.ShortNames = []string{"pvc"}
	k.ReturnDeletedObject = true
	k.Rules = resource.Strategy[claim]{
		PrepareCreate: func(c *claim) {
			c.Status = api.PersistentVolumeClaimStatus{Phase: api.ClaimPending} // upstream's default for what it reads
			claimutil.DropDisabledFields(&c.Spec, nil)
			claimutil.EnforceDataSourceBackwardsCompatibility(&c.Spec, nil)
			claimutil.NormalizeDataSources(&c.Spec)
		},
		PrepareUpdate: func(c, old *claim) {
			c.Status = *old.Status.DeepCopy()
			claimutil.DropDisabledFields(&c.Spec, &old.Spec)
			// The same as in a creation, for clients that leave out what was filled in there.
			claimutil.EnforceDataSourceBackwardsCompatibility(&c.Spec, &old.Spec)
			claimutil.NormalizeDataSources(&c.Spec)
		},
		ValidateCreate: func(c *claim) field.ErrorList {
			return validation.ValidatePersistentVolumeClaim(c, validation.ValidationOptionsForPersistentVolumeClaim(c, nil))
		},
		ValidateUpdate: func(c, old *claim) field.ErrorList {
			return validation.ValidatePersistentVolumeClaimUpdate(c, old, validation.ValidationOptionsForPersistentVolumeClaim(c, old))
		},
		WarnCreate: func(_ context.Context, c *claim) []string { return claimutil.GetWarningsForPersistentVolumeClaim(c) },
		WarnUpdate: func(_ context.Context, c, _ *claim) []string { return claimutil.GetWarningsForPersistentVolumeClaim(c) },
	}.Rules()
	k.Subresources["status"] = resource.Strategy[claim]{
		PrepareUpdate: func(c, old *claim) {
			c.Spec = *old.Spec.DeepCopy()
			claimutil.DropDisabledFieldsFromStatus(c, old)
		},
		ValidateUpdate: func(c, old *claim) field.ErrorList {
			return validation.ValidatePersistentVolumeClaimStatusUpdate(c, old, validation.ValidationOptionsForPersistentVolumeClaim(c, old))
		},
	}.Status(k)
	return k
}
