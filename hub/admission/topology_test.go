package admission

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod has its node's zone and region from the moment that it has a node.
func TestTopologyLabels(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
		corev1.LabelTopologyZone: "roof", corev1.LabelTopologyRegion: "north", corev1.LabelHostname: "n"}}}
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default"), node))
	want := map[string]string{corev1.LabelTopologyZone: "roof", corev1.LabelTopologyRegion: "north"}
	created := pod(func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	if err := admit(t.Context(), c, created, nil); err != nil || !maps.Equal(created.Labels, want) {
		t.Errorf("created on a node: %v, %v", err, created.Labels)
	}
	for name, labels := range map[string]map[string]string{"n": want, "other": nil} {
		bound := pod()
		a := request(bound, nil)
		a.Subresource, a.Body = "binding", &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: name}}
		if err := c.Mutate(t.Context(), a); err != nil || !maps.Equal(bound.Labels, labels) {
			t.Errorf("bound to %s: %v, %v", name, err, bound.Labels)
		}
	}
	pending := pod()
	if err := admit(t.Context(), c, pending, nil); err != nil || len(pending.Labels) > 0 {
		t.Errorf("not bound: %v, %v", err, pending.Labels)
	}
}
