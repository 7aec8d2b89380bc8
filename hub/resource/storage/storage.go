package storage

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageutil "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	"k8s.io/kubernetes/pkg/apis/storage/validation"

	"petrel.dev/petrel/hub/resource"
)

func storageClassKind() *resource.Kind {
	k := resource.Declare(storagev1.SchemeGroupVersion.WithKind("StorageClass"), "storageclasses", "storageclass")
	k.ClusterScoped()
	k.ShortNames = []string{"sc"}
	k.ReturnDeletedObject = true
	k.Rules = resource.Strategy[storage.StorageClass]{
		ValidateCreate: validation.ValidateStorageClass,
		ValidateUpdate: func(c, old *storage.StorageClass) field.ErrorList {
			return append(validation.ValidateStorageClass(c), validation.ValidateStorageClassUpdate(c, old)...)
		},
		WarnCreate: func(_ context.Context, c *storage.StorageClass) []string {
			return storageutil.GetWarningsForStorageClass(c)
		},
		WarnUpdate: func(_ context.Context, c, _ *storage.StorageClass) []string {
			return storageutil.GetWarningsForStorageClass(c)
		},
	}.Rules()
	return k
}

func csiNodeKind() *resource.Kind {
	k := resource.Declare(storagev1.SchemeGroupVersion.WithKind("CSINode"), "csinodes", "csinode")
	k.ClusterScoped()
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	k.Rules = resource.Strategy[storage.CSINode]{
		ValidateCreate:    validation.ValidateCSINode,
		ValidateUpdate:    validation.ValidateCSINodeUpdate,
		ConditionalUpdate: true,
	}.Rules()
	return k
}

func volumeAttachmentKind() *resource.Kind {
	k := resource.Declare(storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"), "volumeattachments", "volumeattachment")
	k.ClusterScoped()
	k.Inert, k.ReturnDeletedObject = resource.NothingActs, true
	s := resource.Strategy[storage.VolumeAttachment]{
		PrepareCreate:     func(a *storage.VolumeAttachment) { a.Status = storage.VolumeAttachmentStatus{} },
		PrepareUpdate:     func(a, old *storage.VolumeAttachment) { a.Status = *old.Status.DeepCopy() },
		ValidateCreate:    validation.ValidateVolumeAttachment,
		ValidateUpdate:    validation.ValidateVolumeAttachmentUpdate,
		ConditionalUpdate: true,
	}
	k.Rules = s.Rules()
	s.PrepareUpdate = func(a, old *storage.VolumeAttachment) {
		copied := old.DeepCopy()
		a.Spec = copied.Spec
		metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &copied.ObjectMeta)
	}
	k.Subresources["status"] = s.Status(k)
	return k
}
