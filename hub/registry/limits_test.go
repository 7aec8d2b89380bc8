package registry_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

func limitPod(name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

// TestPodsAreCapped checks that one pod too many is refused with the reason, whichever way it comes; what exists can be
// changed.
func TestPodsAreCapped(t *testing.T) {
	r := registrytest.Start(t, registry.Config{Limits: map[kube.GVK]registry.Limit{kube.Pod: {Max: 3, Advice: "raise petrel hub --max-pods"}}})
	c := r.Client()
	for _, name := range []string{"a", "b", "c"} {
		registrytest.Create(t, r, limitPod(name))
	}
	target := registrytest.Target(t, kube.Pod, "default", "")
	for _, opts := range []*metav1.CreateOptions{nil, {DryRun: []string{metav1.DryRunAll}}} {
		_, err := r.Create(t.Context(), target, limitPod("d"), opts)
		registrytest.WantError(t, err, http.StatusForbidden, "takes 3 pods and has 3")
	}
	err := c.Commit(t.Context(), []control.Write{{Object: limitPod("d")}})
	registrytest.WantError(t, err, http.StatusForbidden, "--max-pods")
	if _, err := r.Patch(t.Context(), registrytest.Target(t, kube.Pod, "default", "a"), types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"x":"y"}}}`), &metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), kube.Pod, "default", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	registrytest.Create(t, r, limitPod("d"))
}

// TestFullStoreAnswers checks that over its limit the store takes no new object and says why and what helps; deletion goes on
// in all its steps, grace periods and finalizers included, which write the object again first.
func TestFullStoreAnswers(t *testing.T) {
	r := registrytest.Start(t, registry.Config{Store: registrytest.Limited(t, 100<<10)})

	held := configMap("held", "k", "v")
	held.Finalizers = []string{"example.com/hold"}
	registrytest.Create(t, r, held)
	bound := limitPod("bound")
	bound.Spec.NodeName = "n1"
	registrytest.Create(t, r, bound)
	var err error
	n := 0
	for ; n < 100; n++ {
		cm := configMap("fill", "k", strings.Repeat("x", 9000))
		cm.Name, cm.GenerateName = "", "fill-"
		if _, err = r.Create(t.Context(), registrytest.Target(t, kube.ConfigMap, "default", ""), cm, nil); err != nil {
			break
		}
	}
	registrytest.WantError(t, err, http.StatusInsufficientStorage, "only deletions")
	registrytest.WantError(t, err, http.StatusInsufficientStorage, "--store-limit")
	if n < 8 {
		t.Errorf("after %d objects of 9,000 bytes", n)
	}
	pod := registrytest.Target(t, kube.Pod, "default", "bound")
	if _, err := r.Delete(t.Context(), pod, nil); err != nil {
		t.Errorf("graceful deletion: %v", err)
	}
	target := registrytest.Target(t, kube.ConfigMap, "default", "held")
	if _, err := r.Delete(t.Context(), target, nil); err != nil {
		t.Errorf("deletion with a finalizer: %v", err)
	}
	if _, err := r.Patch(t.Context(), target, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), &metav1.PatchOptions{}); err != nil {
		t.Errorf("removal of the finalizer: %v", err)
	}
	if _, err := r.DeleteCollection(t.Context(), registrytest.Target(t, kube.ConfigMap, "default", ""), nil, nil); err != nil {
		t.Errorf("deletion of all: %v", err)
	}
	registrytest.Create(t, r, configMap("after", "k", "v"))
}
