package schedule_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

func storageClass(name, by string) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: by, VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer)}
}

func claimOf(name, class string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
}

func with(p *corev1.Pod, claim string) *corev1.Pod {
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
	return p
}

// volumeOf returns the name of a claim's volume, and the node that this is on.
func (w *world) volumeOf(claim string) (name, node string) {
	synctest.Wait()
	c, _ := control.Get[*corev1.PersistentVolumeClaim](w.Client, kube.PersistentVolumeClaim, "default", claim)
	v, ok := control.Get[*corev1.PersistentVolume](w.Client, kube.PersistentVolume, "", c.Spec.VolumeName)
	if !ok {
		return c.Spec.VolumeName, ""
	}
	return v.Name, localpath.Node(v)
}

// A pod, its claim and a new volume are bound in one commit; a second pod of the claim follows the volume.
func TestVolumeComesWithThePod(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "2"))
		w.Put(node("b", "1"))
		w.Put(storageClass("local-path", localpath.Provisioner))
		w.start()
		w.Put(with(pod("one", "1"), "data"))
		w.want("one", `Unschedulable: 0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.`)
		w.wantEvents(`Warning FailedScheduling Pod/one: 0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.`)
		time.Sleep(time.Second)
		before := w.Revision()
		w.Put(claimOf("data", "local-path"))
		w.want("one", "a")
		if name, on := w.volumeOf("data"); name != "pvc-uid-data" || on != "a" {
			t.Errorf("volume %q on %q", name, on)
		}
		if n := w.Revision() - before; n != 4 { // the claim, and then volume, claim and pod
			t.Errorf("%d changes", n)
		}
		w.wantEvents("Normal ProvisioningSucceeded PersistentVolumeClaim/data: Successfully provisioned volume pvc-uid-data",
			"Normal Scheduled Pod/one: Successfully assigned default/one to a")
		w.Put(with(pod("two", "500m"), "data"))
		w.want("two", "a")
		w.Put(with(pod("three", "1"), "data"))
		w.want("three", "Unschedulable: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match PersistentVolume's node affinity. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.")
	})
}

// Pods that share a claim end up on one node, also when they come together and the first one cannot be bound.
func TestSharedClaimComesTogether(t *testing.T) {
	play(t, func(w *world) {
		for _, n := range []string{"a", "b", "c"} {
			w.Put(node(n, "4"))
		}
		w.Put(storageClass("local-path", localpath.Provisioner))
		w.Put(claimOf("data", "local-path"))
		for _, name := range []string{"p0", "p1", "p2"} {
			w.Put(with(pod(name, "1"), "data"))
		}
		fails := 1
		w.Refuse = func(verb string, obj kube.Object, sub string) error {
			if fails > 0 && sub == "binding" && obj.GetName() == "p0" {
				fails--
				return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "p0", errors.New("it has changed"))
			}
			return nil
		}
		w.start()
		time.Sleep(maxWait)
		_, on := w.volumeOf("data")
		for _, name := range []string{"p0", "p1", "p2"} {
			w.want(name, on)
		}
		if fails > 0 {
			t.Error("nothing was refused")
		}
	})
}

// Disks that are there already are taken once each, also by pods that are decided together.
func TestEachDiskOnce(t *testing.T) {
	play(t, func(w *world) {
		w.Put(storageClass("disks", "kubernetes.io/no-provisioner"))
		for _, n := range []string{"a", "b"} {
			w.Put(node(n, "4"))
			w.Put(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk-" + n}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable},
				Spec: corev1.PersistentVolumeSpec{StorageClassName: "disks", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")},
					NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
						MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n}}}}}}}}})
		}
		for _, name := range []string{"x", "y", "z"} {
			w.Put(claimOf(name, "disks"))
			w.Put(with(pod(name, "1"), name))
		}
		w.start()
		at := map[string]int{}
		for _, name := range []string{"x", "y", "z"} {
			where := w.at(name)
			at[where]++
			if v, _ := w.volumeOf(name); v != "" && v != "disk-"+where {
				t.Errorf("pod on %s has %s", where, v)
			}
		}
		want := map[string]int{"a": 1, "b": 1, "Unschedulable: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.": 1}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Error(diff)
		}
	})
}

// A provisioner outside the hub is given the node, and the pod waits until its claim is bound.
func TestExternalProvisioner(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "2"))
		w.Put(storageClass("ext", "example.com/disk"))
		w.Put(claimOf("data", "ext"))
		w.start()
		w.Put(with(pod("p", "1"), "data"))
		w.want("p", `Unschedulable: 0/1 nodes are available: waiting for the provisioner example.com/disk to make the volume of persistentvolumeclaim "data" on node a.`)
		c, _ := control.Get[*corev1.PersistentVolumeClaim](w.Client, kube.PersistentVolumeClaim, "default", "data")
		if c.Annotations[kube.SelectedNode] != "a" || c.Spec.VolumeName != "" {
			t.Fatalf("claim %v to %q", c.Annotations, c.Spec.VolumeName)
		}
		w.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if wrote := append(updates(w.Writes(), "Pod"), updates(w.Writes(), "PersistentVolumeClaim")...); len(wrote) > 0 {
			t.Errorf("wrote %q while it waited", wrote)
		}
		w.Put(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "made"}})
		c = c.DeepCopy()
		c.Spec.VolumeName = "made"
		c.Annotations[kube.BindCompleted] = "yes"
		w.Put(c)
		w.want("p", "a")
	})
}

// While an external provisioner makes a pod's volume, the pod's room on the node is kept against its equals, over a restart of the hub too: the
// volume will be there and nowhere else. A provisioner that cannot make it there says so, and the room is free again.
func TestRoomIsKeptForAProvisioner(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(storageClass("ext", "example.com/disk"))
		w.Put(claimOf("data", "ext"))
		stop := w.start()
		w.Put(with(pod("p", "1"), "data"))
		w.wantNominated("p", "a")
		w.Put(pod("equal", "1"))
		time.Sleep(time.Hour)
		if at := w.at("equal"); !strings.HasPrefix(at, "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.") {
			t.Errorf("another pod: %s", at)
		}
		stop()
		w.start()
		time.Sleep(time.Hour)
		if at := w.at("equal"); !strings.HasPrefix(at, "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.") {
			t.Errorf("another pod, after a restart: %s", at)
		}
		w.wantNominated("p", "a")

		// It cannot be made there: the claim is given back, and goes where there is more room.
		w.Put(node("b", "4"))
		w.want("equal", "b")
		w.Put(unselected(w.claim("data")))
		time.Sleep(maxWait)
		if on := w.claim("data").Annotations[kube.SelectedNode]; on != "b" {
			t.Errorf("given to %q", on)
		}
		w.wantNominated("p", "b")
		next := pod("next", "1")
		next.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "a"}
		w.Put(next)
		w.want("next", "a")

		w.Put(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "made"}})
		w.Put(boundTo(w.claim("data"), "made"))
		time.Sleep(maxWait)
		w.want("p", "b")
		w.wantNominated("p", "")
	})
}

// claim returns a claim as it is stored.
func (w *world) claim(name string) *corev1.PersistentVolumeClaim {
	synctest.Wait()
	c, _ := control.Get[*corev1.PersistentVolumeClaim](w.Client, kube.PersistentVolumeClaim, "default", name)
	return c.DeepCopy()
}

// unselected is a claim as a provisioner gives it back that cannot serve its node.
func unselected(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	delete(c.Annotations, kube.SelectedNode)
	return c
}

// boundTo is a claim with a volume that has been made for it.
func boundTo(c *corev1.PersistentVolumeClaim, volume string) *corev1.PersistentVolumeClaim {
	c.Spec.VolumeName = volume
	c.Annotations[kube.BindCompleted] = "yes"
	return c
}

// A claim that one pod at a time may use goes to the more important one.
func TestPreemptsForAClaim(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "4"))
		w.Put(node("b", "4"))
		w.Put(storageClass("local-path", localpath.Provisioner))
		single := claimOf("data", "local-path")
		single.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		w.Put(single)
		w.start()
		w.Put(with(prior("low", "1", 1), "data"))
		_, on := w.volumeOf("data")
		w.want("low", on)
		w.Put(with(prior("high", "1", 100), "data"))
		w.wantNominated("high", on)
		if !w.leaving("low") {
			t.Error("low stays")
		}
		time.Sleep(maxWait)
		w.Remove(kube.Pod, "default", "low")
		time.Sleep(maxWait)
		w.want("high", on)
	})
}
