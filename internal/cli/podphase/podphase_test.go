package podphase

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSummary(t *testing.T) {
	pod := func(phase corev1.PodPhase, reason string, ready bool) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "pi1"}, Status: corev1.PodStatus{Phase: phase}}
		if reason != "" {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
		}
		if ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		return p
	}
	gone, unplaced := pod(corev1.PodRunning, "", true), pod(corev1.PodPending, "", false)
	gone.DeletionTimestamp = &metav1.Time{}
	unplaced.Spec.NodeName = ""
	for _, c := range []struct {
		pods []*corev1.Pod
		want string
	}{
		{nil, ""},
		{[]*corev1.Pod{pod(corev1.PodRunning, "", true), pod(corev1.PodSucceeded, "", false)}, ""},
		{[]*corev1.Pod{pod(corev1.PodPending, "ContainerCreating", false), pod(corev1.PodPending, "PodInitializing", false), unplaced}, "1 without a node, 2 starting"},
		{[]*corev1.Pod{gone, pod(corev1.PodRunning, "CrashLoopBackOff", false), pod(corev1.PodPending, "ImagePullBackOff", false), pod(corev1.PodRunning, "", false)},
			"1 without an image, 1 crashing, 1 not ready, 1 stopping"},
	} {
		if got := Summary(c.pods); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
