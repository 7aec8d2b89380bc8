package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// TestPlugins covers what every kind of volume in the table keeps. A kind without a sample here fails.
func TestPlugins(t *testing.T) {
	need(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	optional := true
	samples := map[string]struct {
		source   corev1.VolumeSource
		readOnly bool
		objects  int // that it is made of
	}{
		"emptyDir":  {source: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		"hostPath":  {source: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}},
		"configMap": {corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg")}}, true, 1},
		"secret":    {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}}, true, 1},
		"downwardAPI": {corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}, true, 0},
		"projected": {corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("cfg")}}, {Secret: &corev1.SecretProjection{LocalObjectReference: ref("none"), Optional: &optional}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}}}}, true, 3},
		"persistentVolumeClaim": {corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data", ReadOnly: true}}, true, 1},
		"ephemeral":             {corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, false, 1},
		"image":                 {corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1"}}, true, 0},
	}
	claims := func() map[string]*kube.NodeClaim {
		return map[string]*kube.NodeClaim{"data": claimed(localVolume("pvc-1", "edge")), "p-v": ownClaim(claimed(localVolume("pvc-2", "edge")), "u")}
	}
	if len(kinds) != len(samples) {
		t.Errorf("%d kinds, %d samples", len(kinds), len(samples))
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			c, ok := samples[k.name]
			if !ok {
				t.Fatal("no sample")
			}
			v := vol("v", c.source)
			for _, other := range kinds {
				if other.Supports(&v) != (other.name == k.name) {
					t.Errorf("%s supports it: %v", other.name, other.Supports(&v))
				}
			}
			if other := vol("v", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}); k.Supports(&other) {
				t.Error("it supports every volume")
			}
			m, pod := mounter(t), podWith(v)
			pod.Spec.Containers = []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}}
			m.Images = &images{from: host}
			src := objects{cms: cm(map[string]string{"a": "1"}), secrets: map[string]*corev1.Secret{"sec": {Data: map[string][]byte{"s": []byte("S")}}},
				tokens: map[string]*wire.Token{"u/vault": {Token: "T"}}, claims: claims(), node: thisNode("edge")}
			for range 2 { // again changes nothing
				if err := errors.Join(m.Sync(t.Context(), pod, src), m.MountImages(t.Context(), pod, &pod.Spec.Containers[0])); err != nil {
					t.Fatal(err)
				}
			}
			root, err := m.MountSource(pod, corev1.VolumeMount{Name: "v"})
			if err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Stat(root); err != nil || !fi.IsDir() {
				t.Errorf("no directory at %s: %v", root, err)
			}
			if m.ReadOnly(pod, "v") != c.readOnly {
				t.Errorf("read-only is %v", !c.readOnly)
			}
			before := Objects(pod, src)
			if len(before) != 1+c.objects {
				t.Errorf("made of %d objects besides its pod, want %d", len(before)-1, c.objects)
			}
			src.cms, src.secrets = cm(map[string]string{"a": "2"}), map[string]*corev1.Secret{"sec": {}}
			src.claims = claims()
			if changed := !slices.Equal(before, Objects(pod, src)); changed != (c.objects > 0) {
				t.Errorf("a change of its objects is seen: %v", changed)
			}
			for range 2 { // what is not there is no error
				if err := k.Unmount(t.Context(), m.request(pod, 0)); err != nil {
					t.Error(err)
				}
			}
			if left := mountsAt(t, m.path("u", "v")); left > 0 {
				t.Errorf("%d mounts are left at its place", left)
			}
			if err := m.Remove(t.Context(), pod); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(host, "kept")); err != nil {
				t.Error("what is the node's own was removed with the pod")
			}
		})
	}
}

func mountsAt(t *testing.T, path string) (n int) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			n++
		}
	}
	return n
}
