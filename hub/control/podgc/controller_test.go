package podgc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func pod(name string, age time.Duration, phase corev1.PodPhase, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age))},
		Status:     corev1.PodStatus{Phase: phase},
	}
	for _, f := range edit {
		f(p)
	}
	return p
}

func evicted(p *corev1.Pod) { p.Status.Reason = reasonEvicted }

func going(p *corev1.Pod) {
	p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: time.Unix(1e9, 0)}, []string{"example.com/wait"}
}

func names(pods []*corev1.Pod) string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

func TestExcess(t *testing.T) {
	pods := []*corev1.Pod{
		pod("young", time.Minute, corev1.PodSucceeded),
		pod("old", time.Hour, corev1.PodFailed),
		pod("oldest", 2*time.Hour, corev1.PodSucceeded),
		pod("evicted", time.Second, corev1.PodFailed, evicted),
		pod("runs", 9*time.Hour, corev1.PodRunning),
		pod("waits", 9*time.Hour, corev1.PodPending),
		pod("goes", 9*time.Hour, corev1.PodFailed, going),
	}
	for keep, want := range []string{"evicted oldest old young", "evicted oldest old", "evicted oldest", "evicted", "", ""} {
		before := names(pods)
		if got := names(excess(pods, keep)); got != want || names(pods) != before {
			t.Errorf("keep %d: %q goes, want %q", keep, got, want)
		}
	}
}

func TestEndedPodsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, pod("running", time.Hour, corev1.PodRunning))
		for i := range 5 {
			c.Put(pod(fmt.Sprint("done", i), time.Duration(10-i)*time.Minute, corev1.PodSucceeded))
		}
		go func() { _ = New(Config{Client: c, Keep: 3}).Run(t.Context()) }()
		left := func() string {
			synctest.Wait()
			var out []string
			for _, o := range c.Stored(kube.Pod, "default") {
				out = append(out, o.GetName())
			}
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		if got, want := left(), "done2 done3 done4 running"; got != want {
			t.Errorf("left %s, want %s", got, want)
		}
		c.Put(pod("running", time.Hour, corev1.PodFailed))
		if got, want := left(), "done2 done3 done4"; got != want {
			t.Errorf("after the oldest has ended left %s, want %s", got, want)
		}
		c.Writes()
		time.Sleep(24 * time.Hour)
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("an idle day: %q", w)
		}
	})
}
