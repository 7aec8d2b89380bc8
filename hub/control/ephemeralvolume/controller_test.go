package ephemeralvolume_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/ephemeralvolume"
	"petrel.dev/petrel/internal/kube"
)

func pod(name string, volumes ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}}
	for _, v := range volumes {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: v, VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"v": v}},
				Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: new("local-path")}}}}})
	}
	return p
}

// Each ephemeral volume gets a claim that belongs to its pod, again when it is deleted; a claim of another is left alone.
func TestClaimsOfEphemeralVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b-x"}}
		ending := pod("c", "x")
		ending.DeletionTimestamp, ending.Finalizers = &metav1.Time{Time: time.Now()}, []string{"x/y"}
		c := controltest.New(t, theirs, pod("a", "x", "y"), pod("b", "x"), ending, pod("none"))
		events := &controltest.Events{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- ephemeralvolume.New(ephemeralvolume.Config{Client: c, Events: events}).Run(ctx)
		}()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		claims := func() (out []string) {
			synctest.Wait()
			for _, p := range control.List[*corev1.PersistentVolumeClaim](c, kube.PersistentVolumeClaim, "ns") {
				owner := "nobody"
				if ref := metav1.GetControllerOf(p); ref != nil {
					owner = ref.Kind + " " + string(ref.UID)
				}
				out = append(out, p.Name+" of "+owner+" "+p.Labels["v"])
			}
			return out
		}
		want := []string{"a-x of Pod uid-a x", "a-y of Pod uid-a y", "b-x of nobody "}
		if diff := cmp.Diff(want, claims()); diff != "" {
			t.Error(diff)
		}
		made, _ := control.Get[*corev1.PersistentVolumeClaim](c, kube.PersistentVolumeClaim, "ns", "a-x")
		if made.Spec.StorageClassName == nil || *made.Spec.StorageClassName != "local-path" || made.ObjectMeta.Labels["v"] != "x" {
			t.Errorf("metadata and spec are not those of volumeClaimTemplate: %+v", made)
		}
		if got := events.Take(); len(got) == 0 || got[0] != "Warning FailedBinding Pod/b: ephemeral volume x: PVC ns/b-x was not created for pod ns/b (pod is not owner)" {
			t.Errorf("events %q", got)
		}
		c.Remove(kube.PersistentVolumeClaim, "ns", "a-x")
		if diff := cmp.Diff(want, claims()); diff != "" {
			t.Errorf("a claim was deleted: %s", diff)
		}
	})
}
