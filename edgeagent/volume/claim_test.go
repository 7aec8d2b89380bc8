package volume

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

func thisNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
}

// localVolume is a volume of the built-in provisioner, as the hub makes it.
func localVolume(handle, node string) *corev1.PersistentVolume {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: types.UID(strings.TrimPrefix(handle, "pvc-"))}}
	return localpath.Volume(c, &storagev1.StorageClass{}, thisNode(node))
}

func claimed(v *corev1.PersistentVolume) *kube.NodeClaim {
	return &kube.NodeClaim{Claim: corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}, Volume: v}
}

// ownClaim makes a claim that of an ephemeral volume of the pod.
func ownClaim(c *kube.NodeClaim, uid types.UID) *kube.NodeClaim {
	c.Claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: uid, Controller: new(true)}}
	return c
}

func dataVolume() corev1.Volume {
	return vol("v", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}})
}

// The data of a claim stays when its pod goes, and the next pod of the claim has it again.
func TestDataOutlivesThePod(t *testing.T) {
	m := &Mounter{Dir: t.TempDir(), Local: localVolumes(t)}
	src := objects{claims: map[string]*kube.NodeClaim{"data": claimed(localVolume("pvc-1", "edge"))}, node: thisNode("edge")}
	first := podWith(dataVolume())
	if err := m.Sync(t.Context(), first, src); err != nil {
		t.Fatal(err)
	}
	root, err := m.MountSource(first, corev1.VolumeMount{Name: "v"})
	if err != nil || root != m.Local.Path("pvc-1") {
		t.Fatalf("%s, %v", root, err)
	}
	if fi, err := os.Stat(root); err != nil || fi.Mode().Perm() != 0o777 {
		t.Errorf("a container of any user writes there: %v, %v", fi.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(root, "row"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !m.UsedBy(root) || m.UsedBy(m.Local.Path("pvc-2")) {
		t.Error("it is not seen who has the volume")
	}
	// The claim is gone from the set, as after a deletion by force: the pod keeps what it has.
	if err := m.Sync(t.Context(), first, objects{node: src.node}); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if m.UsedBy(root) {
		t.Error("the pod that is removed still has it")
	}
	second := podWith(dataVolume())
	second.UID = "w"
	if err := m.Sync(t.Context(), second, src); err != nil {
		t.Fatal(err)
	}
	root, err = m.MountSource(second, corev1.VolumeMount{Name: "v"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "row")); string(b) != "1" {
		t.Errorf("%q, %v", b, err)
	}
}

// What cannot be mounted holds the pod back, with the reason.
func TestClaimRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	local := func(path string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}}}
	}
	with := func(v *corev1.PersistentVolume, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		change(v)
		return v
	}
	for name, c := range map[string]struct {
		volume *corev1.PersistentVolume
		why    string
	}{
		"not bound":      {nil, "PVC is not bound"},
		"a directory":    {local(dir), ""},
		"a file":         {local(file), "is no directory"},
		"nothing":        {local(filepath.Join(dir, "absent")), "no such file"},
		"another's":      {localVolume("pvc-1", "other"), "is on node other"},
		"another driver": {with(localVolume("pvc-1", "edge"), func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "ebs.csi.aws.com" }), "not supported; a node has hostPath, local"},
		"a way out":      {with(localVolume("pvc-1", "edge"), func(v *corev1.PersistentVolume) { v.Spec.CSI.VolumeHandle = "../../etc" }), "volume handle"},
		"block": {with(localVolume("pvc-1", "edge"), func(v *corev1.PersistentVolume) {
			v.Spec.VolumeMode = new(corev1.PersistentVolumeBlock)
		}), "volumeMode Block"},
		"options":   {with(local(dir), func(v *corev1.PersistentVolume) { v.Spec.MountOptions = []string{"noexec"} }), "mount options"},
		"read-only": {with(localVolume("pvc-1", "edge"), func(v *corev1.PersistentVolume) { v.Spec.CSI.ReadOnly = true }), "readOnly"},
		"elsewhere": {with(local(dir), func(v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity = localVolume("pvc-1", "other").Spec.NodeAffinity
		}), "no matching NodeSelectorTerms"},
	} {
		m := &Mounter{Dir: t.TempDir(), Local: localVolumes(t)}
		src := objects{claims: map[string]*kube.NodeClaim{"data": claimed(c.volume)}, node: thisNode("edge")}
		err := m.Sync(t.Context(), podWith(dataVolume()), src)
		if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
	m := &Mounter{Dir: t.TempDir(), Local: localVolumes(t)}
	pod := podWith(dataVolume(), vol("e", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}))
	src := objects{node: thisNode("edge"), claims: map[string]*kube.NodeClaim{"p-e": ownClaim(claimed(localVolume("pvc-1", "edge")), "earlier")}}
	if err := m.Sync(t.Context(), pod, src); err == nil || !strings.Contains(err.Error(), `persistentvolumeclaim "data" not found`) ||
		!strings.Contains(err.Error(), "was not created for pod") {
		t.Errorf("no claim, and that of an earlier pod: %v", err)
	}
}

// Sources of PersistentVolumes that are not made here hold the pod back, also those that upstream adds.
func TestOtherPersistentVolumesAreRefused(t *testing.T) {
	typ := reflect.TypeFor[corev1.PersistentVolumeSource]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		if slices.Contains([]string{"HostPath", "Local"}, name) {
			continue
		}
		v := &corev1.PersistentVolume{}
		reflect.ValueOf(&v.Spec.PersistentVolumeSource).Elem().Field(i).Set(reflect.New(typ.Field(i).Type.Elem()))
		m := &Mounter{Dir: t.TempDir(), Local: localVolumes(t)}
		err := m.Sync(t.Context(), podWith(dataVolume()), objects{claims: map[string]*kube.NodeClaim{"data": claimed(v)}, node: thisNode("edge")})
		if err == nil || !strings.Contains(err.Error(), "a node has hostPath, local") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The group of a pod owns the volume before its first container starts, and nothing outside of it, whatever is linked there.
func TestGroupOfAVolume(t *testing.T) {
	need(t)
	m := &Mounter{Dir: t.TempDir(), Local: localVolumes(t)}
	dir, err := m.Local.Make("pvc-1")
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	for path, mode := range map[string]os.FileMode{filepath.Join(dir, "sub", "file"): 0o600, filepath.Join(dir, "run"): 0o700, outside: 0o600} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	src := objects{claims: map[string]*kube.NodeClaim{"data": claimed(localVolume("pvc-1", "edge"))}, node: thisNode("edge")}
	mount := func(uid types.UID, group int64, policy corev1.PodFSGroupChangePolicy) {
		t.Helper()
		pod := podWith(dataVolume())
		pod.UID = uid
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group, FSGroupChangePolicy: &policy}
		if err := m.Sync(t.Context(), pod, src); err != nil {
			t.Fatal(err)
		}
	}
	want := func(path string, mode os.FileMode, group uint32) {
		t.Helper()
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if gid := fi.Sys().(*syscall.Stat_t).Gid; fi.Mode()&(os.ModePerm|os.ModeSetgid) != mode || gid != group {
			t.Errorf("%s: %v of group %d, want %v of %d", path, fi.Mode(), gid, mode, group)
		}
	}
	mount("a", 2000, corev1.FSGroupChangeAlways)
	want(dir, 0o777|os.ModeSetgid, 2000)
	want(filepath.Join(dir, "sub"), 0o770|os.ModeSetgid, 2000)
	want(filepath.Join(dir, "sub", "file"), 0o660, 2000)
	want(filepath.Join(dir, "run"), 0o760, 2000)
	want(outside, 0o600, 0)
	if err := os.Lchown(filepath.Join(dir, "run"), 0, 0); err != nil {
		t.Fatal(err)
	}
	mount("b", 2000, corev1.FSGroupChangeOnRootMismatch)
	want(filepath.Join(dir, "run"), 0o760, 0) // not looked at
	mount("c", 3000, corev1.FSGroupChangeOnRootMismatch)
	want(filepath.Join(dir, "run"), 0o760, 3000)
}
