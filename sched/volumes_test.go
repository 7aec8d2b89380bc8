package sched_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
	"petrel.dev/petrel/sched"
)

// disks is three nodes with classes, volumes and claims that a test adds.
type disks struct{ *sched.Snapshot }

func newDisks() disks {
	f := disks{sched.NewSnapshot()}
	for i, name := range []string{"a", "b", "c"} {
		f.SetNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprint("z", i)}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"),
				corev1.ResourcePods: resource.MustParse("10")}},
		})
	}
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	for name, by := range map[string]string{"local-path": localpath.Provisioner, "disks": "kubernetes.io/no-provisioner", "ext": "example.com/disk"} {
		f.SetStorageClass(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: by, VolumeBindingMode: &wait})
	}
	f.SetStorageClass(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "zoned"}, Provisioner: localpath.Provisioner, VolumeBindingMode: &wait,
		AllowedTopologies: []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: []string{"z2"}}}}}})
	now := storagev1.VolumeBindingImmediate
	f.SetStorageClass(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "now"}, Provisioner: "example.com/disk", VolumeBindingMode: &now})
	return f
}

// claim adds a claim of a class; change may be nil.
func (f disks) claim(name, class string, change func(*corev1.PersistentVolumeClaim)) {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	if change != nil {
		change(c)
	}
	f.SetClaim(c)
}

func boundTo(volume string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName, c.Annotations = volume, map[string]string{kube.BindCompleted: "yes"}
	}
}

// volume adds a volume on a node ("": any) of a class; change may be nil.
func (f disks) volume(name, class, node, size string, change func(*corev1.PersistentVolume)) {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{StorageClassName: class,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	if node != "" {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}
	}
	if change != nil {
		change(v)
	}
	f.SetVolume(v)
}

func podWith(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	for i, c := range claims {
		v := corev1.Volume{Name: fmt.Sprint("v", i), VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c}}}
		if eph, ok := strings.CutPrefix(c, "ephemeral:"); ok {
			v = corev1.Volume{Name: eph, VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}
		}
		p.Spec.Volumes = append(p.Spec.Volumes, v)
	}
	return p
}

// where returns the node of a pod with its claims' volumes, or why there is none.
func (f disks) where(p *corev1.Pod) string {
	d := f.Schedule(sched.NewPod(p))
	if !d.Fits() {
		return d.Message()
	}
	out := d.Node
	for _, c := range d.Claims {
		if c.Volume == nil {
			out += fmt.Sprintf(" %s:new(%s)", c.Claim.Name, c.Class.Provisioner)
		} else {
			out += fmt.Sprintf(" %s:%s", c.Claim.Name, c.Volume.Name)
		}
	}
	return out
}

func (f disks) want(t *testing.T, p *corev1.Pod, want string) {
	t.Helper()
	if got := f.where(p); got != want {
		t.Errorf("pod %s: %s\nwant %s", p.Name, got, want)
	}
}

// A pod goes where its volumes are; those of bound claims are where they are.
func TestBoundVolumes(t *testing.T) {
	f := newDisks()
	f.volume("onb", "x", "b", "1Gi", nil)
	f.volume("onc", "x", "c", "1Gi", nil)
	f.volume("net", "x", "", "1Gi", nil)
	f.volume("zone", "x", "", "1Gi", func(v *corev1.PersistentVolume) { v.Labels = map[string]string{corev1.LabelTopologyZone: "z0__z9"} })
	for _, v := range []string{"onb", "onc", "net", "zone", "none"} {
		f.claim("c-"+v, "x", boundTo(v))
	}
	f.want(t, podWith("p", "c-onb"), "b")
	f.want(t, podWith("p", "c-onb", "c-net"), "b")
	f.want(t, podWith("p", "c-zone"), "a")
	f.want(t, podWith("p", "c-onb", "c-onc"), "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity.")
	f.want(t, podWith("p", "c-onb", "c-zone"), "0/3 nodes are available: 1 node(s) had no available volume zone, 2 node(s) didn't match PersistentVolume's node affinity.")
	f.want(t, podWith("p", "c-none"), "0/3 nodes are available: 3 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).")
}

// What is wrong with the pod's own claims is reported without a look at the nodes.
func TestClaimsThatAreNotReady(t *testing.T) {
	f := newDisks()
	f.claim("soon", "now", nil)
	f.claim("named", "local-path", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "x" })
	f.claim("lost", "x", func(c *corev1.PersistentVolumeClaim) { boundTo("gone")(c); c.Status.Phase = corev1.ClaimLost })
	f.claim("ending", "local-path", func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} })
	f.claim("shared", "local-path", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	})
	f.claim("p-theirs", "local-path", nil)
	const none = "0/3 nodes are available: "
	for claim, want := range map[string]string{
		"absent":           `persistentvolumeclaim "absent" not found.`,
		"soon":             "pod has unbound immediate PersistentVolumeClaims.",
		"named":            "pod has unbound immediate PersistentVolumeClaims.",
		"lost":             `persistentvolumeclaim "lost" bound to non-existent persistentvolume "gone".`,
		"ending":           `persistentvolumeclaim "ending" is being deleted.`,
		"shared":           `persistentvolumeclaim "shared": petrel.dev/local-path makes volumes of one node: access modes are ReadWriteOnce or ReadWriteOncePod.`,
		"ephemeral:mine":   `waiting for ephemeral volume controller to create the persistentvolumeclaim "p-mine".`,
		"ephemeral:theirs": "PVC default/p-theirs was not created for pod default/p (pod is not owner).",
	} {
		f.want(t, podWith("p", claim), none+want)
	}
}

// Claims of classes that wait for a pod get what is on the pod's node, or a new volume there.
func TestVolumesThatWaitForThePod(t *testing.T) {
	f := newDisks()
	f.claim("fresh", "local-path", nil)
	f.want(t, podWith("p", "fresh"), "b fresh:new(petrel.dev/local-path)")
	f.claim("far", "zoned", nil)
	f.want(t, podWith("p", "far", "fresh"), "c far:new(petrel.dev/local-path) fresh:new(petrel.dev/local-path)")

	// Disks that are there: the smallest that fits on the node, each once.
	f.claim("d1", "disks", nil)
	f.claim("d2", "disks", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("2Gi")
	})
	f.want(t, podWith("p", "d1"), "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.")
	f.volume("b-big", "disks", "b", "9Gi", nil)
	f.volume("b-small", "disks", "b", "1Gi", nil)
	f.volume("c-taken", "disks", "c", "1Gi", func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "another"}
	})
	f.want(t, podWith("p", "d1"), "b d1:b-small")
	f.want(t, podWith("p", "d2", "d1"), "b d1:b-small d2:b-big")
	f.claim("d3", "disks", nil)
	f.want(t, podWith("p", "d1", "d2", "d3"), "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.")

	// A node that has been selected stays so, and the provisioner of another is asked.
	f.claim("ext", "ext", func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{kube.SelectedNode: "c"} })
	f.want(t, podWith("p", "ext"), "c ext:new(example.com/disk)")
	f.want(t, podWith("p", "ext", "d1"), "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.")
}

// A ReadWriteOncePod claim is of one pod at a time, wherever that is.
func TestOnePodAtATime(t *testing.T) {
	f := newDisks()
	f.volume("v", "x", "", "1Gi", nil)
	f.claim("one", "x", func(c *corev1.PersistentVolumeClaim) {
		boundTo("v")(c)
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	})
	first := podWith("first", "one")
	first.Spec.NodeName = "b"
	f.SetPod(sched.NewPod(first))
	f.want(t, podWith("second", "one"), "0/3 nodes are available: 3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod.")
	f.RemovePod(first.UID)
	f.want(t, podWith("second", "one"), "b")
}
