package resize_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission/resize"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	kinds "petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

func list(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
}

// TestNodes checks that a pod cannot grow beyond its node, and that nothing else is asked of the node.
func TestNodes(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: list("4", "1Gi")}}
	windows := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w", Labels: map[string]string{corev1.LabelOSStable: "windows"}}, Status: node.Status}
	pods, _ := builtin.New().Lookup(kube.Pod)
	for name, test := range map[string]struct {
		node, cpu, memory, sub string
		same                   bool
		want                   string
		cause                  metav1.CauseType
	}{
		"all of it":          {"n", "4", "1Gi", "resize", false, "", ""},
		"more CPU":           {"n", "4001m", "1Gi", "resize", false, "node didn't have enough allocatable resources: cpu, requested: 4001, allocatable: 4000", "NodeCapacity"},
		"more of both":       {"n", "5", "2Gi", "resize", false, "node didn't have enough allocatable resources: cpu, requested: 5000, allocatable: 4000; memory, requested: 2147483648, allocatable: 1073741824", "NodeCapacity"},
		"nothing changed":    {"n", "5", "1Gi", "resize", true, "", ""},
		"not a resize":       {"n", "5", "1Gi", "status", false, "", ""},
		"on no node":         {"", "5", "1Gi", "resize", false, "", ""},
		"a node that is not": {"x", "1", "1Gi", "resize", false, `node "x" not found`, ""},
		"Windows":            {"w", "1", "1Gi", "resize", false, `pod resize is only supported on linux nodes, node "w" is "windows"`, "UnsupportedPlatform"},
	} {
		old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Generation: 1}, Spec: corev1.PodSpec{NodeName: test.node,
			Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list("1", "1Mi")}}}}}
		pod := old.DeepCopy()
		pod.Spec.Containers[0].Resources.Requests = list(test.cpu, test.memory)
		if !test.same {
			pod.Generation++
		}
		a := &registry.AdmissionRequest{Operation: registry.OpUpdate, Object: pod, Old: old}
		a.Target = kinds.Target{Kind: pods, Namespace: "ns", Name: "p", Subresource: test.sub}
		err := resize.New(controltest.New(t, node, windows)).Check(t.Context(), a)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if want := `pods "p" is forbidden: ` + test.want; err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", name, err, want)
		}
		if !apierrors.IsForbidden(err) || test.cause != "" && !apierrors.HasStatusCause(err, test.cause) {
			t.Errorf("%s: %#v", name, err)
		}
	}
}
