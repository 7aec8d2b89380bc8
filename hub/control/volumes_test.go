package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/ephemeralvolume"
	"petrel.dev/petrel/hub/control/gc"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/hub/control/volumebinder"
	"petrel.dev/petrel/hub/control/volumeprotection"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// storageHub runs what volumes need on a real registry: its rules for specs, statuses and finalizers are the API's.
func storageHub(t *testing.T) control.Client {
	reg := registrytest.New(t)
	c := reg.Client()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	rec := control.NewRecorder(c, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, r := range []runner{
		rec,
		volumebinder.New(volumebinder.Config{Log: log, Client: c, Events: rec.As("persistentvolume-controller")}),
		volumeprotection.New(c, log),
		ephemeralvolume.New(ephemeralvolume.Config{Log: log, Client: c, Events: rec.As("ephemeral_volume")}),
		schedule.New(schedule.Config{Log: log, Client: c, Events: rec.As("default-scheduler")}),
		gc.New(gc.Config{Log: log, Client: c, Events: rec.As("garbage-collector-controller"), Kinds: reg.StoredKinds()}),
	} {
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("%T: %v", r, err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	n := create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}}).DeepCopyObject().(*corev1.Node)
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("10")}
	n.Status.Capacity = n.Status.Allocatable
	if _, err := c.Update(t.Context(), n, "status"); err != nil {
		t.Fatal(err)
	}
	create(t, c, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local-path", Annotations: map[string]string{kube.DefaultStorage: "true"}},
		Provisioner: localpath.Provisioner, VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer)})
	return c
}

func mi(n int) corev1.VolumeResourceRequirements {
	return corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(fmt.Sprint(n, "Mi"))}}
}

// Claims, volumes and pods on the real registry: what the scheduler and the binder write is valid, and so are the ways that it goes again.
func TestVolumesOnTheRegistry(t *testing.T) {
	c := storageHub(t)
	once := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	create(t, c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data", Finalizers: []string{kube.ClaimProtection}},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: once, Resources: mi(10)}})
	container := []corev1.Container{{Name: "c", Image: "x"}}
	create(t, c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{Containers: container, Volumes: []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
		{Name: "own", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: once, Resources: mi(5)}}}}}}}})
	volumes := map[string]string{}
	soon(t, func() string {
		p, ok := control.Get[*corev1.Pod](c, kube.Pod, "default", "p")
		if !ok || p.Spec.NodeName != "n1" {
			return fmt.Sprintf("pod %+v", p)
		}
		for _, name := range []string{"data", "p-own"} {
			claim, ok := control.Get[*corev1.PersistentVolumeClaim](c, kube.PersistentVolumeClaim, "default", name)
			if !ok || claim.Status.Phase != corev1.ClaimBound || claim.Status.Capacity.Storage().IsZero() {
				return fmt.Sprintf("claim %s: %+v", name, claim)
			}
			v, ok := control.Get[*corev1.PersistentVolume](c, kube.PersistentVolume, "", claim.Spec.VolumeName)
			if !ok || v.Status.Phase != corev1.VolumeBound || localpath.Node(v) != "n1" || v.Spec.ClaimRef.UID != claim.UID {
				return fmt.Sprintf("volume of %s: %+v", name, v)
			}
			volumes[name] = v.Name
		}
		return ""
	})
	// In use, the claim stays when it is deleted. Then the pod goes, with its own claim, and both volumes wait for the node.
	for _, gvk := range []kube.GVK{kube.PersistentVolumeClaim, kube.Pod} {
		name := map[kube.GVK]string{kube.PersistentVolumeClaim: "data", kube.Pod: "p"}[gvk]
		if err := c.Delete(t.Context(), gvk, "default", name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, func() string {
		if left := c.List(kube.PersistentVolumeClaim, "default"); len(left) > 0 {
			return fmt.Sprintf("%d claims", len(left))
		}
		for _, name := range volumes {
			v, ok := control.Get[*corev1.PersistentVolume](c, kube.PersistentVolume, "", name)
			if !ok || !localpath.Reclaimed(v) || !slices.Equal(v.Finalizers, []string{localpath.Finalizer}) {
				return fmt.Sprintf("volume %s: %+v", name, v)
			}
		}
		return ""
	})
	// The node removes one, and is deleted before the other.
	v, _ := control.Get[*corev1.PersistentVolume](c, kube.PersistentVolume, "", volumes["data"])
	done := v.DeepCopy()
	done.Finalizers = nil
	if err := c.Commit(t.Context(), []control.Write{{Object: done, Old: v}}); err != nil {
		t.Fatal(err)
	}
	soon(t, func() string {
		if n := len(c.List(kube.PersistentVolume, "")); n != 1 {
			return fmt.Sprintf("%d volumes", n)
		}
		return ""
	})
	if err := c.Delete(t.Context(), kube.Node, "", "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soon(t, func() string {
		if n := len(c.List(kube.PersistentVolume, "")); n != 0 {
			return fmt.Sprintf("%d volumes", n)
		}
		return ""
	})
}
