package volume

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/wire"
)

// TestFileModes covers defaultMode of every kind of volume that has one, and an item's own mode over it.
func TestFileModes(t *testing.T) {
	need(t)
	m := mounter(t)
	mode, own := int32(0o440), int32(0o604)
	label := []corev1.DownwardAPIVolumeFile{{Path: "f", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}},
		{Path: "own", Mode: &own, FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}
	items := []corev1.KeyToPath{{Key: "a", Path: "f"}, {Key: "a", Path: "own", Mode: &own}}
	p := podWith(
		vol("c", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg"), DefaultMode: &mode, Items: items}}),
		vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultMode: &mode, Items: items}}),
		vol("d", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultMode: &mode, Items: label}}),
		vol("p", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("cfg"), Items: items}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: ref("none"), Optional: new(true)}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("none"), Optional: new(true)}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: ref("sec"), Items: []corev1.KeyToPath{{Key: "a", Path: "secret"}}}},
		}}}),
	)
	src := objects{cms: cm(map[string]string{"a": "1"}), secrets: map[string]*corev1.Secret{"sec": {Data: map[string][]byte{"a": []byte("1")}}}, tokens: map[string]*wire.Token{}}
	if err := m.Sync(t.Context(), p, src); err != nil {
		t.Fatal(err)
	}
	want := map[string]os.FileMode{"c/f": 0o440, "c/own": 0o604, "s/f": 0o440, "s/own": 0o604, "d/f": 0o440, "d/own": 0o604,
		"p/f": 0o440, "p/own": 0o604, "p/secret": 0o440}
	for path, mode := range want {
		fi, err := os.Stat(filepath.Join(m.Dir, "u", volumesDir, path))
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, want %v (%v)", path, fi, mode, err)
		}
	}
	for _, optional := range []bool{true, false} {
		for _, s := range []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: ref("none"), Optional: &optional}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("none"), Optional: &optional}},
		} {
			p := podWith(vol("q", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{s}}}))
			if err := m.Sync(t.Context(), p, src); (err == nil) != optional {
				t.Errorf("optional %v: %v", optional, err)
			}
		}
	}
}
