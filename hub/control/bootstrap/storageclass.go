package bootstrap

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// storageClassMade on the Namespace kube-system says that the first StorageClass has been made, or was not needed: users may remove
// and change it, so it is not made again.
const storageClassMade = "petrel.dev/storage-class-made"

// makeStorageClass makes the StorageClass of the built-in provisioner once in the life of a hub's store, and not where there is
// another class already.
func (c *Controller) makeStorageClass(ctx context.Context) error {
	system, ok := control.Get[*corev1.Namespace](c.cfg.Client, kube.Namespace, "", metav1.NamespaceSystem)
	if !ok {
		return nil // it was made a moment ago, and queues the key when the cache has it
	}
	if _, made := system.Annotations[storageClassMade]; made {
		return nil
	}
	marked := system.DeepCopy()
	metav1.SetMetaDataAnnotation(&marked.ObjectMeta, storageClassMade, "true")
	writes := []control.Write{{Object: marked, Old: system}}
	if len(c.cfg.Client.List(kube.StorageClass, "")) == 0 {
		writes = append(writes, control.Write{Object: storageClass()})
	}
	return c.cfg.Client.Commit(ctx, writes)
}

func storageClass() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		TypeMeta:          metav1.TypeMeta{APIVersion: "storage.k8s.io/v1", Kind: "StorageClass"},
		ObjectMeta:        metav1.ObjectMeta{Name: localpath.Class, Annotations: map[string]string{kube.DefaultStorage: "true"}},
		Provisioner:       localpath.Provisioner,
		ReclaimPolicy:     new(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer),
	}
}
