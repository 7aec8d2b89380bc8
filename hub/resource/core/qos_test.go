package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/kube"
)

// TestQOSAsUpstream checks that the class that scheduler and node work with is the one that validation holds a status against.
// They once differed by a limit of zero, and every status of such a pod was refused.
func TestQOSAsUpstream(t *testing.T) {
	amounts := rapid.SampledFrom([]string{"", "0", "1", "2"})
	list := rapid.Custom(func(t *rapid.T) corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{"cpu", "memory", "example.com/x"} {
			if text := amounts.Draw(t, string(name)); text != "" {
				out[name] = quantity.MustParse(text)
			}
		}
		return out
	})
	requirements := rapid.Custom(func(t *rapid.T) corev1.ResourceRequirements {
		switch rapid.SampledFrom([]string{"none", "guaranteed", "any"}).Draw(t, "shape") { // at random "none" would be rare
		case "none":
			return corev1.ResourceRequirements{}
		case "guaranteed":
			both := corev1.ResourceList{"cpu": quantity.MustParse("1"), "memory": quantity.MustParse("1")}
			return corev1.ResourceRequirements{Requests: both, Limits: both}
		}
		return corev1.ResourceRequirements{Requests: list.Draw(t, "requests"), Limits: list.Draw(t, "limits")}
	})
	seen := map[corev1.PodQOSClass]bool{}
	rapid.Check(t, func(t *rapid.T) {
		pod := &corev1.Pod{}
		for range rapid.IntRange(1, 2).Draw(t, "containers") {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: requirements.Draw(t, "resources")})
		}
		if rapid.Bool().Draw(t, "init") {
			pod.Spec.InitContainers = []corev1.Container{{Resources: requirements.Draw(t, "resources")}}
		}
		if rapid.Bool().Draw(t, "pod level") {
			r := requirements.Draw(t, "pod resources")
			pod.Spec.Resources = &r
		}
		got, want := kube.QOS(pod), qos.ComputePodQOS(pod)
		if got != want {
			t.Fatalf("%s; upstream says %s", got, want)
		}
		seen[got] = true
	})
	if len(seen) != 3 {
		t.Errorf("only %v were drawn", seen)
	}
}
