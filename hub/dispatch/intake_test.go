package dispatch

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// A node's last word counts, also when the cache is so far behind that it looks like old news: ready, not ready, ready.
func TestLastReportWinsOverAStaleCache(t *testing.T) {
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u1"},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status:     statusOf(corev1.ConditionTrue),
	}
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, pod)
		in := newIntake(c, wire.Settings{}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = in.run(ctx) }()

		c.Lag(true)
		say := func(ready corev1.ConditionStatus) {
			in.add(job{device: "d1", node: "n1", batch: &wire.Batch{Puts: []wire.Put{podPut(t, ready)}}, done: func() {}})
			synctest.Wait()
		}
		say(corev1.ConditionFalse)
		say(corev1.ConditionTrue)
		c.Lag(false)
		synctest.Wait()
		stored := c.Stored(kube.Pod, "default")[0].(*corev1.Pod)
		if got := stored.Status.Conditions[0].Status; got != corev1.ConditionTrue {
			t.Errorf("stored Ready is %s, the node's last word was True", got)
		}
	})
}

func statusOf(ready corev1.ConditionStatus) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}
}

func podPut(t *testing.T, ready corev1.ConditionStatus) wire.Put {
	t.Helper()
	status, err := json.Marshal(statusOf(ready))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(wire.PodReport{Namespace: "default", Name: "p", Status: status})
	if err != nil {
		t.Fatal(err)
	}
	return wire.Put{Object: wire.Object{ID: wire.ID{Kind: wire.KindPodStatus, UID: "u1"}, Namespace: "default", Name: "p", Data: data}}
}

// TestDeletedPodWithAFinalizerEndsInAPhase checks that a pod of which nothing is left on its node, and which stays in the API for its
// finalizer, shows how it ended, and that its grace is over.
func TestDeletedPodWithAFinalizerEndsInAPhase(t *testing.T) {
	ended := func(phase corev1.PodPhase, code int32) corev1.PodStatus {
		return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{Name: "c",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}}
	}
	for name, c := range map[string]struct {
		report corev1.PodStatus
		phase  corev1.PodPhase
		code   int32
	}{
		"ended well":            {ended(corev1.PodSucceeded, 0), corev1.PodSucceeded, 0},
		"killed":                {ended(corev1.PodFailed, 137), corev1.PodFailed, 137},
		"ended without a phase": {ended(corev1.PodRunning, 1), corev1.PodFailed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now, grace := metav1.Now(), int64(30)
				client := controltest.New(t, &corev1.Pod{
					TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u1", Finalizers: []string{"example.com/count"},
						DeletionTimestamp: &now, DeletionGracePeriodSeconds: &grace},
					Spec:   corev1.PodSpec{NodeName: "n1"},
					Status: statusOf(corev1.ConditionTrue),
				})
				in := newIntake(client, wire.Settings{}, slog.New(slog.DiscardHandler))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = in.run(ctx) }()
				status, err := json.Marshal(c.report)
				if err != nil {
					t.Fatal(err)
				}
				data, err := json.Marshal(wire.PodReport{Namespace: "default", Name: "p", Gone: true, Status: status})
				if err != nil {
					t.Fatal(err)
				}
				put := wire.Put{Object: wire.Object{ID: wire.ID{Kind: wire.KindPodStatus, UID: "u1"}, Namespace: "default", Name: "p", Data: data}}
				for range 2 { // an agent that is restarted reports it again
					in.add(job{device: "d1", node: "n1", batch: &wire.Batch{Puts: []wire.Put{put}}, done: func() {}})
					synctest.Wait()
					stored := client.Stored(kube.Pod, "default")
					if len(stored) != 1 {
						t.Fatalf("%d pods", len(stored))
					}
					p := stored[0].(*corev1.Pod)
					if p.Status.Phase != c.phase || *p.DeletionGracePeriodSeconds != 0 || p.Status.ContainerStatuses[0].State.Terminated.ExitCode != c.code {
						t.Errorf("grace %d, %+v", *p.DeletionGracePeriodSeconds, p.Status)
					}
				}
			})
		})
	}
}
