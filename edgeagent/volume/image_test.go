package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// images has one directory as the content of every image.
type images struct {
	from  string
	fail  error
	calls []string // mount and drop, with the volume and its image
}

func (i *images) MountImage(_ context.Context, podUID, volume, ref, dir string) error {
	i.calls = append(i.calls, "mount "+podUID+"/"+volume+" "+ref)
	if i.fail != nil {
		return i.fail
	}
	return errors.Join(os.MkdirAll(dir, 0o755), unix.Mount(i.from, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

func (i *images) DropImage(_ context.Context, podUID, volume string) error {
	i.calls = append(i.calls, "drop "+podUID+"/"+volume)
	return nil
}

func (i *images) take() string {
	calls := strings.Join(i.calls, "; ")
	i.calls = nil
	return calls
}

// TestImageVolume follows a volume that is an image: it is mounted when a container that mounts it is about to start, once, and again when it is not
// there any more; a subPath of it is what is there, and nothing is made for one; it goes with the pod, also when only the pod's UID is known.
func TestImageVolume(t *testing.T) {
	need(t)
	from := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(from, "models", "small"), 0o755), os.WriteFile(filepath.Join(from, "models", "small", "weights"), []byte("1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	m, all := mounter(t), &images{from: from}
	m.Images = all
	pod := podWith(vol("v", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1"}}), vol("e", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	pod.Spec.Containers = []corev1.Container{{Name: "without", VolumeMounts: []corev1.VolumeMount{{Name: "e"}}}, {Name: "with", VolumeMounts: []corev1.VolumeMount{{Name: "v"}, {Name: "v", SubPath: "models"}}}}
	mount := func(container int, want string) {
		t.Helper()
		if err := m.MountImages(t.Context(), pod, &pod.Spec.Containers[container]); err != nil {
			t.Fatal(err)
		}
		if got := all.take(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if err := m.Sync(t.Context(), pod, objects{}); err != nil {
		t.Fatal(err)
	}
	mount(0, "")
	mount(1, "mount u/v data:1")
	mount(1, "")
	read := func(sub, file string) string {
		t.Helper()
		src, err := m.MountSource(pod, corev1.VolumeMount{Name: "v", SubPath: sub})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(src, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if read("", "models/small/weights") != "1" || read("models/small", "weights") != "1" || read("models/small/weights", "") != "1" {
		t.Error("the content is another")
	}
	if src, err := m.MountSource(pod, corev1.VolumeMount{Name: "v", SubPath: "absent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a subPath that the image does not have: %s, %v", src, err)
	}
	if err := unix.Unmount(m.path("u", "v"), unix.MNT_DETACH); err != nil { // a reboot
		t.Fatal(err)
	}
	mount(1, "mount u/v data:1")
	if err := m.Remove(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got := all.take(); got != "drop u/v" || mountsAt(t, m.path("u", "v")) > 0 {
		t.Errorf("%q, %d mounts", got, mountsAt(t, m.path("u", "v")))
	}
	if _, err := os.Stat(filepath.Join(from, "models", "small", "weights")); err != nil {
		t.Error("the image was removed with the pod")
	}

	mount(1, "mount u/v data:1")
	if err := m.Remove(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}); err != nil {
		t.Fatal(err)
	}
	if got := all.calls; !slices.Contains(got, "drop u/v") || mountsAt(t, m.path("u", "v")) > 0 {
		t.Errorf("of a pod of which the UID is known: %q", got)
	}
	all.take()
	all.fail = errors.New("no room")
	if err := m.MountImages(t.Context(), pod, &pod.Spec.Containers[1]); err == nil || err.Error() != `ImageVolumeMountFailed: volume "v": no room` {
		t.Error(err)
	}
}
