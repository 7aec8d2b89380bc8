package nodeapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// TestPulls checks how far pulls are, which pods wait for them, that the list is bounded, and what comes when containerd does not answer.
func TestPulls(t *testing.T) {
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	pod := func(name string, states ...corev1.ContainerState) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
		for i, s := range states {
			c := fmt.Sprintf("c%d", i)
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "app:1"})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c, State: s})
		}
		return p
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	other, mounts, beside, gone, over, unreported, injected := pod("other", waiting("")), pod("mounts", waiting("PodInitializing")), pod("beside", running, waiting("")), pod("gone", waiting("")), pod("over", waiting("")), pod("unreported", running), pod("injected", running)
	other.Spec.Containers[0].Image = "app:2"
	mounts.Spec.Containers[0].Image = "app:2"
	mounts.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "app:1"}}}}
	mounts.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data"}}
	beside.Spec.Volumes = mounts.Spec.Volumes // which the container that runs mounts, and not the one that waits
	beside.Spec.Containers[0].VolumeMounts, beside.Spec.Containers[1].Image = mounts.Spec.Containers[0].VolumeMounts, "app:2"
	gone.DeletionTimestamp = &metav1.Time{}
	over.Status.Phase = corev1.PodFailed
	unreported.Status = corev1.PodStatus{}
	injected.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "app:1"}}}
	m := machine{t: t, root: t.TempDir(), pulls: []cruntime.PullProgress{{Image: "app:1", Since: time.Unix(1700000000, 0).UTC(), Bytes: 3, TotalBytes: 10}, {Image: "ahead:1"}},
		pods: []*corev1.Pod{pod("starts", running, waiting("ContainerCreating")), pod("retries", waiting("ErrImagePull")), pod("runs", running),
			pod("crashes", waiting("CrashLoopBackOff")), pod("ended", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}), other, mounts, beside, gone, over, unreported, injected}}
	_, body := get(t, m.server(), "/pulls")
	want := `[{"image":"app:1","pods":["ns/injected","ns/mounts","ns/retries","ns/starts","ns/unreported"],"since":"2023-11-14T22:13:20Z","bytes":3,"totalBytes":10},` +
		`{"image":"ahead:1","pods":[],"since":"0001-01-01T00:00:00Z","bytes":0,"totalBytes":0}]` + "\n"
	if body != want {
		t.Errorf("%s\nwant %s", body, want)
	}
	m.pulls = make([]cruntime.PullProgress, 1000)
	if _, body := get(t, m.server(), "/pulls"); strings.Count(body, `"image"`) != maxPulls {
		t.Errorf("%d pulls", strings.Count(body, `"image"`))
	}
	m.pullsErr = errors.New("containerd is away")
	if resp, body := get(t, m.server(), "/pulls"); resp.StatusCode != 503 || body != "containerd is away\n" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
