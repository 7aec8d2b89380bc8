package edgeagent

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

func evicted(st corev1.PodStatus) bool {
	return st.Phase == corev1.PodFailed && st.Reason == "Evicted"
}

// TestEphemeralStorage is field case 08: 50 MiB written against limits of 5 MiB, with a real container.
func TestEphemeralStorage(t *testing.T) {
	m := newMachine(t)
	limit := resource.MustParse("5Mi")
	p := pod("ephlimit", sh("c", "dd if=/dev/zero of=/e/big bs=1M count=20; dd if=/dev/zero of=/big bs=1M count=30; sleep 600"))
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "e", MountPath: "/e"}}
	p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	layer := pod("layer", sh("c", "dd if=/dev/zero of=/big bs=1M count=30; sleep 600"))
	layer.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	logs := pod("logs", sh("c", "while true; do yes | head -c 1000000; sleep 0.1; done"))
	logs.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	calm := pod("calm", sh("c", "dd if=/dev/zero of=/small bs=1M count=2; sleep 600"))
	calm.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	m.want(p, layer, logs, calm)
	m.boot()
	const total = "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "
	for uid, why := range map[string]string{"uid-ephlimit": `Usage of EmptyDir volume "e" exceeds the limit "5Mi". `, "uid-layer": total, "uid-logs": total} {
		if st := m.await(uid, "evicted", evicted); st.Message != why {
			t.Errorf("%s: message %q, want %q", uid, st.Message, why)
		}
		m.await(uid, "ended", func(st corev1.PodStatus) bool { return st.ContainerStatuses[0].State.Terminated != nil })
	}
	m.await("uid-calm", "ready", ready)
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(50 * time.Millisecond) {
		left, _ := filepath.Glob(filepath.Join(m.data, "agent", "pods", "uid-*", ".volumes", "e"))
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still there: %v", left)
		}
	}
}

// TestDiskFloor checks that on a small disk one pod writes all it can. The node says DiskPressure and evicts that pod before
// the disk is full; the others go on, and the space comes back.
func TestDiskFloor(t *testing.T) {
	m := newMachine(t)
	dir := m.smallDisk()
	hog := pod("hog", sh("c", "sleep 3; while true; do dd if=/dev/zero of=/f$((n=n+1)) bs=1M count=2; sleep 0.1; done"))
	done := pod("done", sh("c", "dd if=/dev/zero of=/f bs=1M count=8"))
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	calm := pod("calm", sh("c", "sleep 6000"))
	m.want(hog, done, calm)
	m.boot()
	m.await("uid-done", "done", func(st corev1.PodStatus) bool { return st.Phase == corev1.PodSucceeded })
	st := m.await("uid-hog", "evicted", evicted)
	if !strings.HasPrefix(st.Message, "The node was low on resource: ephemeral-storage. Threshold quantity: 64Mi, available: ") ||
		!strings.Contains(st.Message, "Container c was using ") {
		t.Errorf("message %q", st.Message)
	}
	m.awaitFree(dir, 128<<20)
	if !m.hadCondition(corev1.NodeDiskPressure) {
		t.Error("the node never said DiskPressure")
	}
	m.await("uid-calm", "ready", ready)
	if st := m.await("uid-done", "known", func(corev1.PodStatus) bool { return true }); st.Phase != corev1.PodSucceeded || st.ContainerStatuses[0].State.Terminated == nil {
		t.Errorf("the pod that had ended is %+v", st)
	}
}

// smallDisk makes a disk of 256 MiB of the agent's directory; a quarter of it is the floor.
func (m *machine) smallDisk() string {
	m.t.Helper()
	dir := filepath.Join(m.data, "agent")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=256m"); err != nil {
		m.t.Fatal(err)
	}
	return dir
}

// awaitFree waits until more than so many bytes are free.
func (m *machine) awaitFree(dir string, want int64) {
	m.t.Helper()
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(50 * time.Millisecond) {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			m.t.Fatal(err)
		}
		free := int64(fs.Bavail) * int64(fs.Bsize)
		if free > want {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("only %d MiB are free\n%s", free>>20, m.log())
		}
	}
}

// TestImagesGoFirst checks that when the disk is short, an image that nothing uses any more goes, and no pod.
func TestImagesGoFirst(t *testing.T) {
	m := newMachine(t)
	dir := m.smallDisk()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	ref, err := name.NewTag(srv.Listener.Addr().String()+"/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := random.Layer(55<<20, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(runtimetest.Busybox(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	old := pod("old", sh("c", "sleep 6000"))
	old.Spec.Containers[0].Image = ref.Name()
	m.want(old)
	m.boot("PETREL_TEST_IMAGE_AGE=1s")
	m.await("uid-old", "ready", ready)
	m.term()
	now := metav1.Now()
	old.DeletionTimestamp = &now
	hog := pod("hog", sh("c", "for i in $(seq 135); do dd if=/dev/zero of=/f$i bs=1M count=1; sleep 0.2; done; sleep 6000"))
	m.want(old, hog)
	m.boot("PETREL_TEST_IMAGE_AGE=1s")
	m.await("uid-hog", "ready", ready)
	for end := time.Now().Add(runtimetest.Hope); !strings.Contains(m.log(), "unused images removed"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no image was removed\n%s", m.log())
		}
	}
	m.awaitFree(dir, 100<<20)
	if st := m.await("uid-hog", "known", func(corev1.PodStatus) bool { return true }); !ready(st) {
		t.Errorf("a pod was evicted while there were unused images: %+v", st)
	}
}
