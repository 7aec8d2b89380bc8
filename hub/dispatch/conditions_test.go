package dispatch

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// TestConditionsOfTheAgentEnd checks that a condition of Petrel's own that a node says no more is over; those of other writers
// stay.
func TestConditionsOfTheAgentEnd(t *testing.T) {
	old := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: "petrel.dev/MemoryLimits", Status: corev1.ConditionFalse}, {Type: "example.com/Battery", Status: corev1.ConditionTrue},
		{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}}}
	said := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	got := (&intake{}).nodeStatus(old.DeepCopy(), old, said).Object.(*corev1.Node).Status.Conditions
	if len(got) != 2 || got[0].Type != "example.com/Battery" || got[1].Type != corev1.NodeReady || got[1].Status != corev1.ConditionTrue {
		t.Errorf("conditions %+v", got)
	}
}

// TestResizeConditionsEnd checks that a resize of which a node reports nothing any more is over; conditions of other writers stay.
func TestResizeConditionsEnd(t *testing.T) {
	stored := corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue}, {Type: "example.com/gate", Status: corev1.ConditionTrue},
		{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}}}
	reported := corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	if got := mergePodStatus(stored, reported).Conditions; len(got) != 2 || got[0].Type != "example.com/gate" || got[1].Type != corev1.PodReady {
		t.Errorf("conditions %+v", got)
	}
}

// TestDarkIsTheHubsCondition checks that a report does not take away the condition that only the node controller writes. It
// tells from it that the node was dark, and what to take back.
func TestDarkIsTheHubsCondition(t *testing.T) {
	old := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: kube.DarkCondition, Status: corev1.ConditionTrue}}}}
	said := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	got := (&intake{}).nodeStatus(old.DeepCopy(), old, said).Object.(*corev1.Node)
	if !kube.IsConditionTrue(got.Status.Conditions, kube.DarkCondition) || !kube.IsConditionTrue(got.Status.Conditions, corev1.NodeReady) {
		t.Errorf("conditions %+v", got.Status.Conditions)
	}
}

// TestGatesBelongToOthers checks that a node's report does not undo what a client has made of a readiness gate's condition, whatever the node was
// sent before; a gate may name one of the node's own conditions, which it reports.
func TestGatesBelongToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporters(t)
		p := r.pod("fine").DeepCopy()
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}, {ConditionType: corev1.ContainersReady}}
		p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/lb", Status: corev1.ConditionTrue, Message: "in the pool"}}
		r.client.Put(p)
		synctest.Wait()
		done := r.say("good", r.podStatus("fine", corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: "example.com/lb", Status: corev1.ConditionFalse}}}))
		synctest.Wait()
		got := r.pod("fine").Status
		gate := kube.FindCondition(got.Conditions, "example.com/lb")
		if !*done || got.Phase != corev1.PodRunning || gate == nil || gate.Status != corev1.ConditionTrue || gate.Message != "in the pool" {
			t.Errorf("answered %v: %+v", *done, got)
		}
		if !kube.IsConditionTrue(got.Conditions, corev1.ContainersReady) {
			t.Errorf("the node's own: %+v", got.Conditions)
		}
	})
}
