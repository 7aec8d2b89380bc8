package kube

import (
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	conditionThen = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	conditionNow  = metav1.NewTime(conditionThen.Add(time.Hour))
)

// podCond is short for the fields that the tests vary.
func podCond(t corev1.PodConditionType, s corev1.ConditionStatus, reason string, since metav1.Time) corev1.PodCondition {
	return corev1.PodCondition{Type: t, Status: s, Reason: reason, LastTransitionTime: since}
}

func TestSetCondition(t *testing.T) {
	ready := podCond(corev1.PodReady, corev1.ConditionTrue, "", conditionThen)
	scheduled := podCond(corev1.PodScheduled, corev1.ConditionTrue, "", conditionThen)
	for _, c := range []struct {
		name string
		have []corev1.PodCondition
		set  corev1.PodCondition
		want []corev1.PodCondition
	}{
		{"into nothing", nil,
			podCond(corev1.PodReady, corev1.ConditionTrue, "", conditionNow),
			[]corev1.PodCondition{podCond(corev1.PodReady, corev1.ConditionTrue, "", conditionNow)}},
		{"a new type goes to the end", []corev1.PodCondition{ready},
			podCond(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable", conditionNow),
			[]corev1.PodCondition{ready, podCond(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable", conditionNow)}},
		{"a change of status is a transition", []corev1.PodCondition{ready, scheduled},
			podCond(corev1.PodReady, corev1.ConditionFalse, "ContainersNotReady", conditionNow),
			[]corev1.PodCondition{podCond(corev1.PodReady, corev1.ConditionFalse, "ContainersNotReady", conditionNow), scheduled}},
		{"to Unknown as well", []corev1.PodCondition{ready},
			podCond(corev1.PodReady, corev1.ConditionUnknown, "", conditionNow),
			[]corev1.PodCondition{podCond(corev1.PodReady, corev1.ConditionUnknown, "", conditionNow)}},
		{"another reason is none", []corev1.PodCondition{ready, scheduled},
			podCond(corev1.PodReady, corev1.ConditionTrue, "PodCompleted", conditionNow),
			[]corev1.PodCondition{podCond(corev1.PodReady, corev1.ConditionTrue, "PodCompleted", conditionThen), scheduled}},
	} {
		if got := SetCondition(slices.Clone(c.have), c.set); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

// TestSetConditionReplacesAllElse checks that only the transition time is carried over; heartbeat and update times are the
// caller's.
func TestSetConditionReplacesAllElse(t *testing.T) {
	node := SetCondition([]corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: conditionThen, LastTransitionTime: conditionThen, Message: "old"}},
		corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: conditionNow, LastTransitionTime: conditionNow})
	if want := (corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: conditionNow, LastTransitionTime: conditionThen}); node[0] != want {
		t.Errorf("node: %+v", node[0])
	}
	d := SetCondition([]appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, LastUpdateTime: conditionThen, LastTransitionTime: conditionThen}},
		appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, LastUpdateTime: conditionNow, LastTransitionTime: conditionNow})
	if want := (appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, LastUpdateTime: conditionNow, LastTransitionTime: conditionThen}); d[0] != want {
		t.Errorf("deployment: %+v", d[0])
	}
}

func TestFindAndRemoveCondition(t *testing.T) {
	list := []corev1.PodCondition{
		podCond(corev1.PodReady, corev1.ConditionTrue, "", conditionThen),
		podCond(corev1.PodScheduled, corev1.ConditionUnknown, "", conditionThen),
	}
	for kind, want := range map[corev1.PodConditionType]struct{ found, isTrue bool }{
		corev1.PodReady:        {true, true},
		corev1.PodScheduled:    {true, false},
		corev1.PodInitialized:  {false, false},
		corev1.ContainersReady: {false, false},
	} {
		if found := FindCondition(list, kind) != nil; found != want.found || IsConditionTrue(list, kind) != want.isTrue {
			t.Errorf("%s: found %v, true %v", kind, found, IsConditionTrue(list, kind))
		}
	}
	if FindCondition(list, corev1.PodReady) != &list[0] {
		t.Error("FindCondition should point into the list")
	}
	before := slices.Clone(list)
	if got := RemoveCondition(list, corev1.PodReady); len(got) != 1 || got[0] != before[1] || !slices.Equal(list, before) {
		t.Errorf("removed: %+v, the list itself: %+v", got, list)
	}
	mine := []corev1.PodCondition{podCond(corev1.PodReady, corev1.ConditionFalse, "", conditionNow)}
	if got := OtherConditions(list, mine); len(got) != 1 || got[0].Type != corev1.PodScheduled {
		t.Errorf("of other writers: %+v", got)
	}
}

// TestEachConditionTypeHasItsCase would panic for a type of Condition that fieldsOf does not know.
func TestEachConditionTypeHasItsCase(t *testing.T) {
	replaces(t, corev1.PodCondition{Type: "A"})
	replaces(t, corev1.NodeCondition{Type: "A"})
	replaces(t, corev1.NamespaceCondition{Type: "A"})
	replaces(t, appsv1.DeploymentCondition{Type: "A"})
	replaces(t, appsv1.ReplicaSetCondition{Type: "A"})
}

func replaces[C Condition](t *testing.T, c C) {
	t.Helper()
	had := c
	*fieldsOf(&had).since, *fieldsOf(&c).since = conditionThen, conditionNow
	got := SetCondition([]C{had}, c)
	if len(got) != 1 || *fieldsOf(&got[0]).since != conditionThen || FindCondition(got, "A") == nil {
		t.Errorf("%T: %+v", c, got)
	}
}
