package cli

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestSplitMarks(t *testing.T) {
	for _, c := range []struct{ args, what, set, remove string }{
		{"node pi1 zone=a", "node pi1", "map[zone:a]", ""},
		{"node/pi1 zone=a rack-", "node/pi1", "map[zone:a]", "rack"},
		{"pods a=b=c", "pods", "map[a:b=c]", ""},
		{"pods empty=", "pods", "map[empty:]", ""},
		{"pods x/y-", "pods", "map[]", "x/y"},
	} {
		what, set, remove, err := splitMarks(strings.Fields(c.args))
		if err != nil || strings.Join(what, " ") != c.what || fmt.Sprint(set) != c.set || strings.Join(remove, " ") != c.remove {
			t.Errorf("%s: %v %v %v %v", c.args, what, set, remove, err)
		}
	}
	if _, _, _, err := splitMarks([]string{"node", "pi1"}); err == nil {
		t.Error("nothing to set was not refused")
	}
}

func TestParseTaint(t *testing.T) {
	for text, want := range map[string]corev1.Taint{
		"k=v:NoSchedule":       {Key: "k", Value: "v", Effect: "NoSchedule"},
		"a.b/k:NoExecute":      {Key: "a.b/k", Effect: "NoExecute"},
		"k=:PreferNoSchedule":  {Key: "k", Effect: "PreferNoSchedule"},
		"k=v=w:NoSchedule":     {},
		"a b=c:NoSchedule":     {},
		"k":                    {},
		":NoSchedule":          {},
		"k=v:Never":            {},
		"k=v:NoSchedule:again": {},
	} {
		got, err := ParseTaint(text)
		if (err != nil) != (want.Key == "") || err == nil && !got.MatchTaint(&want) || got.Value != want.Value {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func object(t *testing.T, conditions ...any) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"generation": int64(2)},
		"status":   map[string]any{"observedGeneration": int64(2), "phase": "Running", "conditions": conditions},
	}}
	return o
}

func TestConditions(t *testing.T) {
	ready := map[string]any{"type": "Ready", "status": "True"}
	for _, c := range []struct {
		kind, arg string
		want      bool
	}{
		{"condition", "Ready", true}, {"condition", "ready", true}, {"condition", "Ready=false", false}, {"condition", "Other", false},
		{"jsonpath", "{.status.phase}=Running", true}, {"jsonpath", ".status.phase=Running", true}, {"jsonpath", "{.status.phase}=Pending", false},
		{"jsonpath", "{.status.phase}", true}, {"jsonpath", "{.status.nope}", false},
	} {
		test, err := condition(c.kind, c.arg)
		if err != nil {
			t.Errorf("%s=%s: %v", c.kind, c.arg, err)
			continue
		}
		if got, err := test(object(t, ready)); got != c.want || err != nil {
			t.Errorf("%s=%s: %v, %v", c.kind, c.arg, got, err)
		}
	}
	stale := object(t, ready)
	stale.SetGeneration(3)
	if hasCondition(stale, "Ready", "True") {
		t.Error("a condition of an older generation counts")
	}
	for _, bad := range []string{"frob", "condition=", "jsonpath="} {
		kind, arg, _ := strings.Cut(bad, "=")
		if _, err := condition(kind, arg); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestTargetPort(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}}}}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
		{Name: "http", Port: 80, TargetPort: intstr.FromString("web")}, {Name: "raw", Port: 81, TargetPort: intstr.FromInt32(9)},
		{Name: "same", Port: 82}, {Name: "lost", Port: 83, TargetPort: intstr.FromString("nowhere")},
	}}}
	for asked, want := range map[string]int32{"80": 8080, "http": 8080, "81": 9, "same": 82, "83": 0, "99": 0} {
		got, _, err := targetPort(svc, pod, asked)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("port %s: %d, %v", asked, got, err)
		}
	}
}

// What left the manifest leaves the object; what others set stays.
func TestThreeWay(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	live := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "c", "annotations": map[string]any{lastApplied: `{"data":{"gone":"1","kept":"1"}}`}},
		"data":     map[string]any{"gone": "1", "kept": "1", "foreign": "1"},
	}}
	for kind, want := range map[string]types.PatchType{"ConfigMap": types.StrategicMergePatchType, "Unheard": types.MergePatchType} {
		gvk.Kind = kind
		pt, patch, err := threeWay(&meta.RESTMapping{GroupVersionKind: gvk}, live, []byte(`{"data":{"kept":"2"}}`))
		if err != nil || pt != want {
			t.Fatalf("%s: %s, %v", kind, pt, err)
		}
		text := string(patch)
		if !strings.Contains(text, `"gone":null`) || !strings.Contains(text, `"kept":"2"`) || strings.Contains(text, "foreign") {
			t.Errorf("%s: %s", kind, text)
		}
	}
}
