package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
	"petrel.dev/petrel/internal/wire"
)

// Only a volume's own node, and only while it is to remove it, lets the object go; a failure becomes one Event.
func TestVolumeReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		volume := func(uid string, deleted bool) string {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}
			v := localpath.Volume(claim, &storagev1.StorageClass{}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "good"}})
			v.UID, v.Status.Phase, v.Finalizers = types.UID(uid), corev1.VolumeReleased, []string{localpath.Finalizer}
			if deleted {
				v.DeletionTimestamp = &metav1.Time{Time: time.Now()}
			}
			r.client.Put(v)
			return v.Name
		}
		there := func(name string) bool {
			synctest.Wait()
			_, ok := control.Get[*corev1.PersistentVolume](r.client, kube.PersistentVolume, "", name)
			return ok
		}
		report := func(node, uid, name string, rep wire.VolumeReport) {
			t.Helper()
			rep.Volume = name
			if done := r.say(node, r.put(wire.KindVolume, uid, name, rep)); !there(name) && !*done {
				t.Error("not answered")
			}
		}
		wanted, kept := volume("u1", true), volume("u2", false)
		report("evil", "u1", wanted, wire.VolumeReport{Gone: true})
		report("good", "u9", wanted, wire.VolumeReport{Gone: true})
		report("good", "u2", kept, wire.VolumeReport{Gone: true})
		if !there(wanted) || !there(kept) {
			t.Fatal("another node, another object of the name, or a volume in use: the object is gone")
		}
		for range 2 {
			report("good", "u1", wanted, wire.VolumeReport{Error: "operation not permitted"})
		}
		synctest.Wait()
		var events []*corev1.Event
		for _, e := range control.List[*corev1.Event](r.client, kube.Event, "default") {
			if e.Reason == "VolumeFailedDelete" {
				events = append(events, e)
			}
		}
		if len(events) != 1 || events[0].Message != "node good cannot remove the directory of this volume, and tries again: operation not permitted" ||
			events[0].InvolvedObject.Name != wanted {
			t.Errorf("events %+v", events)
		}
		report("good", "u1", wanted, wire.VolumeReport{Gone: true})
		if there(wanted) {
			t.Error("the directory is gone, and the object is not")
		}
	})
}
