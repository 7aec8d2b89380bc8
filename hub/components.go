package hub

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// components returns the ComponentStatuses: what /readyz checks, as clients of Kubernetes have read it before there was a /readyz.
func (h *Hub) components() []kube.Object {
	var out []kube.Object
	for _, check := range h.checks() {
		c := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
		if err := check.Health(); err != nil {
			c.Status, c.Message, c.Error = corev1.ConditionFalse, "", err.Error()
		}
		out = append(out, &corev1.ComponentStatus{
			TypeMeta:   metav1.TypeMeta{APIVersion: kube.ComponentStatus.GroupVersion().String(), Kind: kube.ComponentStatus.Kind},
			ObjectMeta: metav1.ObjectMeta{Name: check.Name},
			Conditions: []corev1.ComponentCondition{c},
		})
	}
	return out
}
