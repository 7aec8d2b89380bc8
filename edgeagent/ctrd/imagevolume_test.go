package ctrd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// dataImage is an image of some layers, each with one file, for another machine than this.
func dataImage(t *testing.T, files ...string) v1.Image {
	t.Helper()
	img := empty.Image
	for _, name := range files {
		img = runtimetest.WithFile(t, img, "data/"+name, name)
	}
	return runtimetest.Built(t, img, "s390x")
}

// TestImageVolume mounts images of one layer and of two, which are for no machine of this kind, into a container: it reads them and a part of one, and
// cannot write. The content stays while the pod does, though the image's name is gone and collected and the mount is lost, and goes with it.
func TestImageVolume(t *testing.T) {
	b := newBench(t)
	r := b.runtime
	reg := newRegistry(t)
	one, two := reg.image("one:1", dataImage(t, "a")), reg.image("two:1", dataImage(t, "b", "c"))
	if _, err := r.Pull(t.Context(), one, nil); !errors.As(err, new(*cruntime.PlatformError)) {
		t.Fatalf("it is to be for another machine: %v", err)
	}
	if _, err := r.VolumeImages().Pull(t.Context(), reg.index("index:1", dataImage(t, "d")), nil); !errors.As(err, new(*cruntime.PlatformError)) {
		t.Errorf("an index without an entry for this machine: %v", err)
	}
	of := func(name, ref string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: ref, PullPolicy: corev1.PullIfNotPresent}}}
	}
	b.pod("p", corev1.Container{
		Command:      []string{"sh", "-c", "cat /one/data/a /two/data/b /two/data/c /part/b; touch /one/new /two/new /part/new; echo .; sleep 1000"},
		VolumeMounts: []corev1.VolumeMount{{Name: "one", MountPath: "/one"}, {Name: "two", MountPath: "/two"}, {Name: "two", MountPath: "/part", SubPath: "data"}},
	}, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{of("one", one), of("two", two)}
	})
	b.await("p", "running", isRunning)
	b.awaitLog("p", "abcb")
	b.awaitLog("p", "touch: /part/new: Read-only file system")
	b.awaitLog("p", "touch: /two/new: Read-only file system")
	b.awaitLog("p", "touch: /one/new: Read-only file system")

	// The names go, as by a user; containerd collects what nothing holds.
	if gone, err := r.Collect(t.Context(), Collection{}); err != nil || !slices.Contains(gone, one) || !slices.Contains(gone, two) {
		t.Fatalf("%v, %v", gone, err)
	}
	dir := filepath.Join(b.dir, "p", ".volumes")
	for _, v := range []string{"one", "two"} { // as by a reboot
		if err := unix.Unmount(filepath.Join(dir, v), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if err := r.VolumeImages().MountImage(t.Context(), "p", v, "petrel.test/gone:1", filepath.Join(dir, v)); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{"one/data/a": "a", "two/data/b": "b", "two/data/c": "c"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	b.set = nil
	b.apply()
	b.empty()
	for v, ref := range map[string]string{"one": one, "two": two} {
		if _, err := r.client.SnapshotService(r.snapshotter).Stat(r.ns(t.Context()), viewKey("p", v)); err == nil {
			t.Errorf("the content of %s is left", v)
		}
		if err := r.VolumeImages().MountImage(t.Context(), "q", v, ref, t.TempDir()); !errors.Is(err, cruntime.ErrNotFound) {
			t.Errorf("an image that is gone: %v", err)
		}
	}
}
