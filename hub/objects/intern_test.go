package objects

import (
	"fmt"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

func internPod(t testing.TB, name string) (*resource.Kind, *corev1.Pod, []byte) {
	t.Helper()
	k, ok := builtin.New().Lookup(kube.Pod)
	if !ok {
		t.Fatal("no pods")
	}
	seconds := int64(300)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web", "tier": "front"}},
		Spec: corev1.PodSpec{
			NodeName: "pi-17", Containers: []corev1.Container{{Name: "c", Image: "registry.example/app:1", Env: []corev1.EnvVar{{Name: "MODE", Value: "x"}}}},
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", TolerationSeconds: &seconds}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
			Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Initialized", Status: "True"}, {Type: "PodScheduled", Status: "True"}, {Type: "ContainersReady", Status: "True"}, {Type: "X", Status: "True"}},
		},
	}
	enc, err := Encode(k, p)
	if err != nil {
		t.Fatal(err)
	}
	return k, p, enc.With(7)
}

// TestFilledObjectsShareMemory checks that what the cache makes of many stored objects is equal to what is stored, has no room
// in lists that nothing will fill, and has equal strings once. Of 10,000 pods that is some 15 MB.
func TestFilledObjectsShareMemory(t *testing.T) {
	c := &Cache{decoded: newDecoded(nil)}
	in := newInterner()
	var pods []*corev1.Pod
	for _, name := range []string{"a", "b"} {
		k, _, raw := internPod(t, name)
		obj, err := c.load(k, sqlstore.Entry{Key: "/core/pods/default/" + name, Value: raw, Rev: 7}, in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Decode(k, raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, obj); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		pods = append(pods, obj.(*corev1.Pod))
	}
	a, b := pods[0], pods[1]
	if n := cap(a.Status.Conditions); n != len(a.Status.Conditions) {
		t.Errorf("%d conditions, room for %d", len(a.Status.Conditions), n)
	}
	same := func(what, x, y string) {
		if x != y || unsafe.StringData(x) != unsafe.StringData(y) {
			t.Errorf("%s: %q and %q do not share memory", what, x, y)
		}
	}
	same("nodeName", a.Spec.NodeName, b.Spec.NodeName)
	same("image", a.Spec.Containers[0].Image, b.Spec.Containers[0].Image)
	same("env", a.Spec.Containers[0].Env[0].Value, b.Spec.Containers[0].Env[0].Value)
	same("toleration", a.Spec.Tolerations[0].Key, b.Spec.Tolerations[0].Key)
	same("label", a.Labels["app"], b.Labels["app"])
	same("condition", string(a.Status.Conditions[2].Type), string(b.Status.Conditions[2].Type))
}

func BenchmarkFill(b *testing.B) {
	k, _, raw := internPod(b, "a")
	c := &Cache{decoded: newDecoded(nil)}
	in := newInterner()
	for i := 0; b.Loop(); i++ {
		if _, err := c.load(k, sqlstore.Entry{Key: fmt.Sprint(i), Value: raw, Rev: 7}, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	k, _, raw := internPod(b, "a")
	for b.Loop() {
		if _, err := Decode(k, raw); err != nil {
			b.Fatal(err)
		}
	}
}
