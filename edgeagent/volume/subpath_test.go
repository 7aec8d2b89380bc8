package volume

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestSubPathMissing (field log, case 20): a subPath that a ConfigMap does not have is an empty directory, as kubelet makes
// one, and becomes the file for the containers that start after the key has come.
func TestSubPathMissing(t *testing.T) {
	need(t)
	m := mounter(t)
	data := map[string]string{"a.txt": "a"}
	src := objects{cms: cm(data)}
	p := podWith(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cfg")}}))
	sync := func() {
		t.Helper()
		if err := m.Sync(t.Context(), p, src); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(sub string) string {
		t.Helper()
		path, err := m.MountSource(p, corev1.VolumeMount{Name: "cm", SubPath: sub})
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	sync()
	for _, sub := range []string{"nothere", "deep/er"} {
		if entries, err := os.ReadDir(mount(sub)); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v, %v", sub, entries, err)
		}
	}
	for _, sub := range []string{"/tmp", "x/../../m"} {
		if _, err := m.MountSource(p, corev1.VolumeMount{Name: "cm", SubPath: sub}); err == nil {
			t.Errorf("subPath %s is mounted", sub)
		}
	}
	sync()
	data["nothere"] = "now"
	sync()
	if b, err := os.ReadFile(mount("nothere")); err != nil || string(b) != "now" {
		t.Errorf("after the key has come: %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(m.path("u", "cm"), "deep")); err == nil {
		t.Error("a directory that was made for a subPath is left in a volume that was written anew")
	}
}
