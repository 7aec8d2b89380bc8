package downward

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestLimitField checks that for a limit that is not set the downward API says the pod's, or what the node has for pods.
func TestLimitField(t *testing.T) {
	node := corev1.ResourceList{"memory": resource.MustParse("900Mi"), "cpu": resource.MustParse("3")}
	pod := &corev1.Pod{}
	c := &corev1.Container{}
	check := func(name, want string) {
		t.Helper()
		if got, err := ResourceField(&corev1.ResourceFieldSelector{Resource: name}, pod, c, node); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", name, got, err, want)
		}
	}
	check("limits.memory", "943718400")
	check("limits.cpu", "3")
	check("requests.memory", "0")
	pod.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("40Mi")}}
	check("limits.memory", "41943040")
	check("limits.cpu", "3")
	c.Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("1Mi")}
	check("limits.memory", "1048576")
}
