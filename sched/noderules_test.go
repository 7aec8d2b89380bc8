package sched_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/sched"
)

// NodeRules give the answer of the filters: a pod that may be bound is placed, one that may not is refused.
func TestNodeRulesAgreeWithFilters(t *testing.T) {
	pods := map[string]corev1.PodSpec{
		"plain":    {},
		"selects":  {NodeSelector: map[string]string{"class": "edge"}},
		"named":    {NodeName: "other"},
		"cordoned": {Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists}}},
		"all":      {Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
	}
	taint := func(key string, effect corev1.TaintEffect) []corev1.Taint {
		return []corev1.Taint{{Key: key, Effect: effect}}
	}
	nodes := []*corev1.Node{
		{ObjectMeta: metav1.ObjectMeta{Name: "bare"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "edge", Labels: map[string]string{"class": "edge"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "ml"}, Spec: corev1.NodeSpec{Taints: taint("only-ml", corev1.TaintEffectNoSchedule)}},
		{ObjectMeta: metav1.ObjectMeta{Name: "leaving"}, Spec: corev1.NodeSpec{Taints: taint("leave", corev1.TaintEffectNoExecute)}},
		{ObjectMeta: metav1.ObjectMeta{Name: "soft"}, Spec: corev1.NodeSpec{Taints: taint("soft", corev1.TaintEffectPreferNoSchedule)}},
		{ObjectMeta: metav1.ObjectMeta{Name: "cordoned"}, Spec: corev1.NodeSpec{Unschedulable: true, Taints: taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)}},
	}
	for name, spec := range pods {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		rules := sched.RulesOf(pod)
		for _, n := range nodes {
			bind, stay := rules.Admit(n)
			only := sched.NewSnapshot()
			n = n.DeepCopy()
			n.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("8")}
			only.SetNode(n)
			if filters := only.Schedule(sched.NewPod(pod)).Fits(); bind != filters {
				t.Errorf("%s on %s: rules say %v, filters %v", name, n.Name, bind, filters)
			}
			if bind && !stay {
				t.Errorf("%s on %s: may be bound and may not stay", name, n.Name)
			}
		}
	}
	plain := sched.RulesOf(&corev1.Pod{})
	if _, stay := plain.Admit(nodes[2]); !stay {
		t.Error("NoSchedule drives pods out")
	}
	if _, stay := plain.Admit(nodes[3]); stay {
		t.Error("NoExecute lets pods stay")
	}
}
