package edgeagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/podrun/runtimetest"
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

// TestDiskFloor: on a small disk one pod writes all it can. The node says DiskPressure and evicts that pod before the disk
// is full; the others go on, and the space comes back.
func TestDiskFloor(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(m.data, "agent")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"); err != nil { // a quarter of it is the floor
		t.Fatal(err)
	}
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
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(50 * time.Millisecond) {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			t.Fatal(err)
		}
		if free := int64(fs.Bavail) * fs.Bsize; free > 128<<20 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("only %d MiB are free\n%s", free>>20, m.log())
		}
	}
	if !m.hadCondition(corev1.NodeDiskPressure) {
		t.Error("the node never said DiskPressure")
	}
	m.await("uid-calm", "ready", ready)
	if st := m.await("uid-done", "known", func(corev1.PodStatus) bool { return true }); st.Phase != corev1.PodSucceeded || st.ContainerStatuses[0].State.Terminated == nil {
		t.Errorf("the pod that had ended is %+v", st)
	}
}
