package cli

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
