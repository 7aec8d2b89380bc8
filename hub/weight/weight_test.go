package weight

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/internal/memtest"
)

const mib = 1 << 20

// list returns a text with a list of n items between before and after.
func list(before, item, after string, n int) string {
	return before + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + after
}

// TestEstimates decodes bodies that grow by very different factors, and checks that none takes more than its estimate, and that
// the estimate of a usual object is small.
func TestEstimates(t *testing.T) {
	pod := func() any { return &corev1.Pod{} }
	definition := func() any { return &apiextensionsv1.CustomResourceDefinition{} }
	configMap := func() any { return &corev1.ConfigMap{} }
	var data strings.Builder
	data.WriteString(`{"data":{"a":""`)
	for i := range 50_000 {
		fmt.Fprintf(&data, `,"k%d":""`, i)
	}
	data.WriteString(`}}`)
	anything := func() any { return &map[string]any{} }
	for name, test := range map[string]struct {
		body string
		into func() any
	}{
		"containers of nothing":         {list(`{"spec":{"containers":[`, `{}`, `]}}`, 20_000), pod},
		"containers that are null":      {list(`{"spec":{"containers":[`, `null`, `]}}`, 20_000), pod},
		"containers that are numbers":   {list(`{"spec":{"containers":[`, `0`, `]}}`, 20_000), pod},
		"containers by an escaped name": {list(`{"spec":{"\u0063ontainers":[`, `{}`, `]}}`, 20_000), pod},
		"finalizers":                    {list(`{"metadata":{"finalizers":[`, `""`, `]}}`, 200_000), configMap},
		"data":                          {data.String(), configMap},
		"schemas":                       {list(`{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"allOf":[`, `{}`, `]}}}]}}`, 20_000), definition},
		"schemas behind UnmarshalJSON":  {list(`{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"items":[`, `{}`, `]}}}]}}`, 20_000), definition},
		"maps of no type":               {list(`{"a":[`, `{"":0}`, `]}`, 100_000), anything},
		"empty maps of no type":         {list(`{"a":[`, `{}`, `]}`, 300_000), anything},
		"lists of no type":              {list(`{"a":[`, `[]`, `]}`, 300_000), anything},
		"numbers of no type":            {list(`{"a":[`, `1`, `]}`, 500_000), anything},
	} {
		t.Run(name, func(t *testing.T) {
			into, shape := test.into(), Untyped()
			if _, ok := into.(*map[string]any); !ok {
				shape = ShapeOf(into)
			}
			estimate, err := JSON([]byte(test.body), shape, 1<<40)
			if err != nil {
				t.Fatal(err)
			}
			before := memtest.Live()
			_ = kjson.UnmarshalCaseSensitivePreserveInts([]byte(test.body), into) // some are malformed, which is found at the end
			took := memtest.Live() - before
			t.Logf("%d bytes: estimate %.1f MiB, took %.1f MiB", len(test.body), float64(estimate)/mib, float64(took)/mib)
			if took > estimate+mib {
				t.Errorf("took %d bytes, more than the estimate of %d", took, estimate)
			}
			runtime.KeepAlive(into)
		})
	}
}

// TestUsualBodies checks that objects as they are used weigh little, and what the decoder skips nothing.
func TestUsualBodies(t *testing.T) {
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"b","env":[{"name":"A","value":"1"}],
		"volumeMounts":[{"name":"d","mountPath":"/d"}]}],"volumes":[{"name":"d","emptyDir":{}}]}}`
	if n, err := JSON([]byte(pod), ShapeOf(&corev1.Pod{}), mib); err != nil || n > 20<<10 {
		t.Errorf("a pod weighs %d: %v", n, err)
	}
	text := `{"data":{"a":"` + strings.Repeat(`\"{[,`, 100_000) + `"}}`
	if n, err := JSON([]byte(text), ShapeOf(&corev1.ConfigMap{}), mib); err != nil || n > 20<<10 {
		t.Errorf("a text weighs %d: %v", n, err)
	}
	if n, err := JSON([]byte(list(`{"nothing":[`, `{}`, `]}`, 100_000)), ShapeOf(&corev1.Pod{}), mib); err != nil || n > 20<<10 {
		t.Errorf("an unknown field weighs %d: %v", n, err)
	}
	if s := ShapeOf(&unstructured.Unstructured{}); s != Untyped() {
		t.Error("an object without a type has the shape of one with a type")
	}
}

// TestDepth checks that no body makes the estimate itself recurse, and that what is deep is refused in all forms that would recurse.
func TestDepth(t *testing.T) {
	if _, err := JSON([]byte(strings.Repeat("[", 3*mib)), Untyped(), 1<<40); !errors.Is(err, ErrDeep) {
		t.Error(err)
	}
	if _, err := JSON([]byte(strings.Repeat(`{"a":`, MaxDepth)+"1"+strings.Repeat("}", MaxDepth)), Untyped(), 1<<40); err != nil {
		t.Error(err)
	}
	// Schemas in the items of schemas: each level reads all that is in it again. Here an hour's work.
	items := strings.Repeat(`{"items":`, 900) + "{}" + strings.Repeat("}", 900)
	if _, err := JSON([]byte(`{"spec":{"versions":[{"schema":{"openAPIV3Schema":`+items+`}}]}}`), ShapeOf(&apiextensionsv1.CustomResourceDefinition{}), 1<<40); !errors.Is(err, ErrDeep) {
		t.Error(err)
	}
	CBOR([]byte(strings.Repeat("\x81", 3*mib)), Untyped(), 1<<40)
	// A schema in a schema (field "not"): the generated decoder has no bound, and hundreds of thousands would end the process.
	deep := []byte{}
	for range 2 * MaxDepth {
		deep = message(28, deep)
	}
	body := append([]byte("k8s\x00"), message(2, message(2, message(7, message(4, message(1, deep)))))...)
	shape := ShapeOf(&apiextensionsv1.CustomResourceDefinition{})
	if _, err := Protobuf(body, shape, 1<<40); !errors.Is(err, ErrDeep) {
		t.Errorf("%d bytes of schemas in schemas: %v", len(body), err)
	}
}

// message returns a protobuf field that holds b.
func message(number int, b []byte) []byte {
	head := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number)<<3|2), uint64(len(b)))
	return append(head, b...)
}

// TestForms checks that the same object weighs about the same in each form, and that bombs in protobuf and CBOR are seen.
func TestForms(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x", Annotations: map[string]string{"a": strings.Repeat("\n\x00", 20_000)}}, Spec: corev1.PodSpec{Containers: make([]corev1.Container, 1000)}}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i] = corev1.Container{Name: "a", Image: "b", Env: []corev1.EnvVar{{Name: "x"}}}
	}
	shape := ShapeOf(pod)
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pod.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := direct.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	byJSON, _ := JSON(text, shape, 1<<40)
	byProtobuf, err := Protobuf(append([]byte("k8s\x00"), message(2, raw)...), shape, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	for form, n := range map[string]int64{"protobuf": byProtobuf, "CBOR": CBOR(binary, shape, 1<<40)} {
		if n < byJSON/3 || n > 3*byJSON {
			t.Errorf("%s weighs %d, JSON %d", form, n, byJSON)
		}
	}
	if n, _ := Protobuf(append([]byte("k8s\x00"), message(2, message(2, []byte(strings.Repeat("\x12\x00", mib))))...), shape, 1<<40); n < 800*mib {
		t.Errorf("a million containers in protobuf weigh %d", n)
	}
	bomb := "\xa1\x64spec\xa1\x7f\x65conta\x65iners\xff\x9f" + strings.Repeat("\xa0", mib) + "\xff"
	if n := CBOR([]byte(bomb), shape, 1<<40); n < 800*mib {
		t.Errorf("a million containers in CBOR weigh %d", n)
	}
}

// FuzzWeight checks that no bytes make an estimate fail or run on.
func FuzzWeight(f *testing.F) {
	f.Add([]byte(`{"spec":{"containers":[{},null,0,"",[]],"\u0061":{"b":[1,{}]}},"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}}}]}}`))
	f.Add([]byte("\xa1\x7f\x65conta\x65iners\xff\x9f\xa0\xc1\x01\xff"))
	f.Add(append([]byte("k8s\x00"), message(2, message(2, message(2, []byte("\x0a\x01a"))))...))
	shapes := []*Shape{ShapeOf(&corev1.Pod{}), ShapeOf(&apiextensionsv1.CustomResourceDefinition{}), Untyped()}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, s := range shapes {
			if n, _ := JSON(body, s, mib); n < 0 {
				t.Errorf("JSON weighs %d", n)
			}
			if n, _ := Protobuf(body, s, mib); n < 0 {
				t.Errorf("protobuf weighs %d", n)
			}
			if n := CBOR(body, s, mib); n < 0 {
				t.Errorf("CBOR weighs %d", n)
			}
		}
	})
}
