package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"petrel.dev/petrel/internal/kube"
)

// FuzzPullPolicy checks that a pod has the pull policies that upstream's defaults give it.
func FuzzPullPolicy(f *testing.F) {
	for _, image := range []string{"", "a", "a:1", "a:latest", "a:latest ", "a:", ":1", "a:b:latest", "a:latest:b", "h:5000/a", "h:5000/a:1", "h:5000/a:latest",
		"a:1@sha256:0123", "a:1/b", "A:1", "a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"a:latest@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"} {
		f.Add(image)
	}
	defaults := withPullPolicies(func(obj kube.Object) { legacyscheme.Scheme.Default(obj) })
	f.Fuzz(func(t *testing.T, image string) {
		list := []corev1.Container{{Image: image}, {Image: image, ImagePullPolicy: corev1.PullNever}}
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: list, InitContainers: list[:1:1]}}
		want := pod.DeepCopy()
		legacyscheme.Scheme.Default(want)
		defaults(pod)
		for i, c := range pod.Spec.Containers {
			if c.ImagePullPolicy != want.Spec.Containers[i].ImagePullPolicy {
				t.Errorf("image %q: %s, want %s", image, c.ImagePullPolicy, want.Spec.Containers[i].ImagePullPolicy)
			}
		}
		if got := pod.Spec.InitContainers[0].ImagePullPolicy; got != want.Spec.InitContainers[0].ImagePullPolicy {
			t.Errorf("image %q of an init container: %s", image, got)
		}
	})
}
