package volumeprotection_test

import (
	"context"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/volumeprotection"
	"petrel.dev/petrel/internal/kube"
)

var (
	volumes = corev1.SchemeGroupVersion.WithKind("PersistentVolume")
	claims  = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
)

// A claim that is deleted stays while a pod on a node uses it, and a volume while it is bound.
func TestProtection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claim := func(name string) *corev1.PersistentVolumeClaim {
			return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Finalizers: []string{kube.ClaimProtection}}}
		}
		pod := func(name, node, of string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
				Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: of}}}}}}
		}
		volume := func(name string, phase corev1.PersistentVolumePhase) *corev1.PersistentVolume {
			return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{kube.VolumeProtection}}, Status: corev1.PersistentVolumeStatus{Phase: phase}}
		}
		c := controltest.New(t, claim("free"), claim("used"), claim("shared"), claim("waited"), pod("a", "n", "used"), pod("b", "n", "shared"), pod("c", "", "waited"),
			volume("bound", corev1.VolumeBound), volume("loose", corev1.VolumeReleased))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- volumeprotection.New(c, nil).Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		gone := func(gvk kube.GVK, ns, name string) bool {
			synctest.Wait()
			_, ok := c.Get(gvk, ns, name)
			return !ok
		}
		for _, name := range []string{"free", "used", "shared", "waited"} {
			if err := c.Delete(ctx, claims, "ns", name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if want := name == "free" || name == "waited"; gone(claims, "ns", name) != want {
				t.Errorf("claim %s is gone: %v", name, !want)
			}
		}
		c.Remove(kube.Pod, "ns", "a")
		ended := pod("b", "n", "shared")
		ended.Status.Phase = corev1.PodSucceeded
		c.Put(ended)
		for _, name := range []string{"used", "shared"} {
			if !gone(claims, "ns", name) {
				t.Errorf("claim %s stays without a pod", name)
			}
		}
		for _, name := range []string{"bound", "loose"} {
			if err := c.Delete(ctx, volumes, "", name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if want := name == "loose"; gone(volumes, "", name) != want {
				t.Errorf("volume %s is gone: %v", name, !want)
			}
		}
		o, _ := c.Get(volumes, "", "bound")
		released := o.DeepCopyObject().(*corev1.PersistentVolume)
		released.Status.Phase = corev1.VolumeReleased
		if _, err := c.Update(ctx, released, "status"); err != nil {
			t.Fatal(err)
		}
		if !gone(volumes, "", "bound") {
			t.Error("a volume that is bound no more stays")
		}
	})
}
