package localpath_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

func claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "u1"},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
}

func class() *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local-path"}, Provisioner: localpath.Provisioner,
		VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer)}
}

// What one directory on one node cannot be is refused, with the reason.
func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim, *storagev1.StorageClass)
		why    string
	}{
		"plain": {func(*corev1.PersistentVolumeClaim, *storagev1.StorageClass) {}, ""},
		"single": {func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.AccessModes[0] = corev1.ReadWriteOncePod
		}, ""},
		"block": {func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.VolumeMode = new(corev1.PersistentVolumeBlock)
		}, "volumeMode Block is not possible"},
		"shared": {func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.AccessModes = append(c.Spec.AccessModes, corev1.ReadWriteMany)
		}, "volumes of one node"},
		"selector": {func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.Selector = &metav1.LabelSelector{}
		}, "selector"},
		"copy": {func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "x"}
		}, "dataSource"},
		"options": {func(_ *corev1.PersistentVolumeClaim, s *storagev1.StorageClass) { s.MountOptions = []string{"ro"} }, "mount options"},
		"parameter": {func(_ *corev1.PersistentVolumeClaim, s *storagev1.StorageClass) {
			s.Parameters = map[string]string{"path": "/"}
		}, `parameter "path"`},
		"immediate": {func(_ *corev1.PersistentVolumeClaim, s *storagev1.StorageClass) {
			s.VolumeBindingMode = new(storagev1.VolumeBindingImmediate)
		}, "WaitForFirstConsumer"},
	} {
		pvc, sc := claim(), class()
		c.change(pvc, sc)
		if why := localpath.Refuses(pvc, sc); (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q, want %q", name, why, c.why)
		}
	}
}

// A node removes a directory only when the object is deleted, nobody has it, and the policy says so.
func TestReclaimed(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "pi"}}}
	released := func() *corev1.PersistentVolume {
		v := localpath.Volume(claim(), class(), node)
		v.DeletionTimestamp, v.Status.Phase = &metav1.Time{}, corev1.VolumeReleased
		return v
	}
	v := released()
	if v.Name != "pvc-u1" || localpath.Node(v) != "n1" || !localpath.Reclaimed(v) {
		t.Errorf("%s on %q, reclaimed %v", v.Name, localpath.Node(v), localpath.Reclaimed(v))
	}
	if values := v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values; values[0] != "pi" {
		t.Errorf("affinity to %v", values)
	}
	for name, keep := range map[string]func(v *corev1.PersistentVolume){
		"not deleted": func(v *corev1.PersistentVolume) { v.DeletionTimestamp = nil },
		"bound":       func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound },
		"retained": func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		},
		"done":      func(v *corev1.PersistentVolume) { v.Finalizers = []string{kube.VolumeProtection} },
		"another's": func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "ebs.csi.aws.com" },
	} {
		v := released()
		if keep(v); localpath.Reclaimed(v) {
			t.Errorf("%s: the data would be removed", name)
		}
	}
}
