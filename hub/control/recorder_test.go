package control_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func TestRecorderCountsRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		r := control.NewRecorder(c, nil)
		go func() { _ = r.Run(t.Context()) }()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}

		events := r.As("scheduler")
		for range 100 {
			events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", "0/%d nodes are available", 3)
			time.Sleep(time.Second)
		}
		events.Event(node, corev1.EventTypeNormal, "NodeReady", "%s", strings.Repeat("x", 2000))
		time.Sleep(time.Minute)

		got := control.List[*corev1.Event](c, kube.Event, "shop")
		if len(got) != 1 {
			t.Fatalf("%d events of the pod, want one with a count", len(got))
		}
		e := got[0]
		if e.Count != 100 || e.Reason != "FailedScheduling" || e.Message != "0/3 nodes are available" ||
			e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.UID != "u1" || e.Source.Component != "scheduler" {
			t.Errorf("event is %+v", e)
		}
		if d := e.LastTimestamp.Sub(e.FirstTimestamp.Time); d != 99*time.Second {
			t.Errorf("first to last: %v, want 99s", d)
		}
		if n := len(c.Writes()); n > 13 {
			t.Errorf("%d writes for 101 events, want at most one in 10 s for each", n)
		}
		got = control.List[*corev1.Event](c, kube.Event, "default")
		if len(got) != 1 || len(got[0].Message) != 1024 {
			t.Errorf("the node's event should be in default, cut to 1024 bytes: %v", got)
		}

		// The event expires; the next occurrence makes a new one.
		c.Remove(kube.Event, "shop", e.Name)
		events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", "0/3 nodes are available")
		time.Sleep(time.Minute)
		if got := control.List[*corev1.Event](c, kube.Event, "shop"); len(got) != 1 || got[0].Count != 1 {
			t.Errorf("after expiry: %v", got)
		}
	})
}

func TestRecorderWritesManyTogetherAndLosesOnlyTheRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		c.Refuse = func(verb string, o kube.Object, _ string) error {
			if o.GetNamespace() == "ending" {
				return errors.New("namespace is terminating")
			}
			return nil
		}
		r := control.NewRecorder(c, nil)
		for i := range 250 { // more than one commit, and before Run: nothing blocks
			ns := "shop"
			if i == 7 {
				ns = "ending"
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web", UID: types.UID(fmt.Sprint(i))}}
			r.As("t").Event(pod, corev1.EventTypeNormal, "Scheduled", "to n1")
		}
		go func() { _ = r.Run(t.Context()) }()
		synctest.Wait()
		if n := len(c.List(kube.Event, "")); n != 249 {
			t.Errorf("%d events, want all but the refused one", n)
		}
	})
}
