package bootstrap

import (
	"testing"
	"testing/synctest"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// A new hub has one default StorageClass. Removed or changed it stays so, and a hub with a class of its users' does not get it.
func TestFirstStorageClass(t *testing.T) {
	const addr = "192.0.2.7:6443"
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		run(t, c, addr)
		class, ok := control.Get[*storagev1.StorageClass](c, kube.StorageClass, "", "local-path")
		if !ok || kube.DefaultClass(c.List(kube.StorageClass, ""), kube.DefaultStorage) == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer {
			t.Fatalf("class %+v", class)
		}
		c.Remove(kube.StorageClass, "", "local-path")
		run(t, c, addr) // the hub is started again
		if _, ok := c.Get(kube.StorageClass, "", "local-path"); ok {
			t.Error("a class that was removed is back")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Provisioner: "example.com/x"})
		run(t, c, addr)
		if n := len(c.List(kube.StorageClass, "")); n != 1 {
			t.Errorf("%d classes", n)
		}
		c.Writes()
		c.Remove(kube.StorageClass, "", "own")
		run(t, c, addr)
		if n := len(c.List(kube.StorageClass, "")); n != 0 {
			t.Errorf("%d classes", n)
		}
	})
}
