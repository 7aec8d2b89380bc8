package resource

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageutil "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	"k8s.io/kubernetes/pkg/apis/storage/validation"

	"petrel.dev/petrel/internal/kube"
)

func storageClassKind() *Kind {
	k := declare(storagev1.SchemeGroupVersion.WithKind("StorageClass"), "storageclasses", "storageclass",
		func() kube.Object { return &storagev1.StorageClass{} }, func() runtime.Object { return &storagev1.StorageClassList{} })
	k.clusterScoped()
	k.ShortNames = []string{"sc"}
	k.Inert, k.ReturnDeletedObject = nothingActs, true
	k.Rules = strategy[storage.StorageClass]{
		validateCreate: validation.ValidateStorageClass,
		validateUpdate: func(c, old *storage.StorageClass) field.ErrorList {
			return append(validation.ValidateStorageClass(c), validation.ValidateStorageClassUpdate(c, old)...)
		},
		warnCreate: func(_ context.Context, c *storage.StorageClass) []string {
			return storageutil.GetWarningsForStorageClass(c)
		},
		warnUpdate: func(_ context.Context, c, _ *storage.StorageClass) []string {
			return storageutil.GetWarningsForStorageClass(c)
		},
	}.rules()
	return k
}

func csiNodeKind() *Kind {
	k := declare(storagev1.SchemeGroupVersion.WithKind("CSINode"), "csinodes", "csinode",
		func() kube.Object { return &storagev1.CSINode{} }, func() runtime.Object { return &storagev1.CSINodeList{} })
	k.clusterScoped()
	k.Inert, k.ReturnDeletedObject = nothingActs, true
	k.Rules = strategy[storage.CSINode]{
		validateCreate:    validation.ValidateCSINode,
		validateUpdate:    validation.ValidateCSINodeUpdate,
		conditionalUpdate: true,
	}.rules()
	return k
}

func volumeAttachmentKind() *Kind {
	k := declare(storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"), "volumeattachments", "volumeattachment",
		func() kube.Object { return &storagev1.VolumeAttachment{} }, func() runtime.Object { return &storagev1.VolumeAttachmentList{} })
	k.clusterScoped()
	k.Inert, k.ReturnDeletedObject = nothingActs, true
	s := strategy[storage.VolumeAttachment]{
		prepareCreate:     func(a *storage.VolumeAttachment) { a.Status = storage.VolumeAttachmentStatus{} },
		prepareUpdate:     func(a, old *storage.VolumeAttachment) { a.Status = *old.Status.DeepCopy() },
		validateCreate:    validation.ValidateVolumeAttachment,
		validateUpdate:    validation.ValidateVolumeAttachmentUpdate,
		conditionalUpdate: true,
	}
	k.Rules = s.rules()
	s.prepareUpdate = func(a, old *storage.VolumeAttachment) {
		copied := old.DeepCopy()
		a.Spec = copied.Spec
		metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &copied.ObjectMeta)
	}
	k.Subresources["status"] = s.status(k)
	return k
}
