package apiserver_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	clientfeatures "k8s.io/client-go/features"
	featuretesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// A client that has been told to use CBOR writes, reads, lists and watches in it.
func TestCBORClient(t *testing.T) {
	featuretesting.SetFeatureDuringTest(t, clientfeatures.ClientsAllowCBOR, true)
	featuretesting.SetFeatureDuringTest(t, clientfeatures.ClientsPreferCBOR, true)
	h := newHub(t)
	sent := &recorder{}
	cfg := rest.CopyConfig(h.config)
	cfg.Wrap(sent.wrap)
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	secrets := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace("default")
	w, err := secrets.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	want := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "a", "labels": map[string]any{"n": "1"}},
		"data": map[string]any{"k": "dg=="}, "type": "Opaque",
	}}
	if _, err := secrets.Create(t.Context(), want, metav1.CreateOptions{FieldValidation: "Strict"}); err != nil {
		t.Fatal(err)
	}
	got, err := secrets.Get(t.Context(), "a", metav1.GetOptions{})
	if v, _, _ := unstructured.NestedString(got.Object, "data", "k"); err != nil || v != "dg==" {
		t.Errorf("got %v, %v", got, err)
	}
	list, err := secrets.List(t.Context(), metav1.ListOptions{LabelSelector: "n=1"})
	if err != nil || len(list.Items) != 1 || list.GetResourceVersion() == "" || list.Items[0].GetName() != "a" {
		t.Errorf("listed %v, %v", list, err)
	}
	if ev := <-w.ResultChan(); ev.Type != watch.Added || ev.Object.(*unstructured.Unstructured).GetName() != "a" {
		t.Errorf("watched %+v", ev)
	}
	if _, err := secrets.Get(t.Context(), "b", metav1.GetOptions{}); err == nil || err.Error() != `secrets "b" not found` {
		t.Errorf("what is absent: %v", err)
	}
	if err := secrets.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	for _, c := range sent.types {
		if !strings.HasPrefix(c, "application/cbor") {
			t.Errorf("a request or an answer had the type %q", c)
		}
	}
}

// recorder notes the media types of bodies in both directions.
type recorder struct {
	next  http.RoundTripper
	types []string
}

func (r *recorder) wrap(next http.RoundTripper) http.RoundTripper {
	r.next = next
	return r
}

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.Body != nil {
		r.types = append(r.types, q.Header.Get("Content-Type")+" in "+q.Method)
	}
	a, err := r.next.RoundTrip(q)
	if err == nil {
		r.types = append(r.types, a.Header.Get("Content-Type")+" for "+q.Method+" "+q.URL.Path)
	}
	return a, err
}

// TestCBORBomb sends a body whose empty maps would take fifty times its size, as an object and as an apply.
func TestCBORBomb(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	bomb := "\xa1\x64data\x9f" + strings.Repeat("\xa0", 1<<20) + "\xff"
	for method, contentType := range map[string]string{"POST": "application/cbor", "PATCH": "application/apply-patch+cbor"} {
		path := configMaps
		if method == "PATCH" {
			path += "/a?fieldManager=m"
		}
		if a := h.do(method, path, bomb, "Content-Type: "+contentType); a.code != 413 || !strings.Contains(a.body, "maps and arrays") {
			t.Errorf("%s: %d %.200s", method, a.code, a.body)
		}
	}
}

// The forms of a list say the same, an empty one and one with more items than fit in the first byte of a CBOR array.
func TestBinaryLists(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	only := rest.CopyConfig(h.config)
	only.ContentType, only.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	protobuf := kubernetes.NewForConfigOrDie(only).CoreV1().ConfigMaps("default")
	for _, n := range []int{0, 30, 300} {
		have, err := protobuf.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := len(have.Items); i < n; i++ {
			if _, err := protobuf.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}, BinaryData: map[string][]byte{"b": {0, 1}}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var plain corev1.ConfigMapList
		if err := json.Unmarshal([]byte(h.do("GET", configMaps, "").body), &plain); err != nil || len(plain.Items) != n {
			t.Fatalf("%d items, %v", len(plain.Items), err)
		}
		typed, err := protobuf.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(typed.Items) != n || typed.ResourceVersion != plain.ResourceVersion {
			t.Errorf("protobuf: %d items at %q, %v", len(typed.Items), typed.ResourceVersion, err)
		}
		a := h.do("GET", configMaps, "", "Accept: application/cbor")
		if a.code != 200 || a.header.Get("Content-Type") != "application/cbor" {
			t.Fatalf("%d %s", a.code, a.header.Get("Content-Type"))
		}
		u := &unstructured.UnstructuredList{}
		if _, _, err := cbor.NewSerializer(nil, nil).Decode([]byte(a.body), nil, u); err != nil || len(u.Items) != n || u.GetKind() != "ConfigMapList" {
			t.Fatalf("CBOR: %d items of %q, %v", len(u.Items), u.GetKind(), err)
		}
		for i, item := range plain.Items {
			if typed.Items[i].Name != item.Name || u.Items[i].GetName() != item.Name || !bytes.Equal(typed.Items[i].BinaryData["b"], item.BinaryData["b"]) {
				t.Fatalf("item %d: %s, %s, %s", i, item.Name, typed.Items[i].Name, u.Items[i].GetName())
			}
		}
	}
}

// A program that reads nothing but protobuf can watch: with objects, and with their metadata alone.
func TestProtobufWatch(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	only := rest.CopyConfig(h.config)
	only.ContentType, only.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	c := kubernetes.NewForConfigOrDie(only).CoreV1().ConfigMaps("default")
	w, err := c.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "0", AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := c.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for ev := range w.ResultChan() {
		if cm, ok := ev.Object.(*corev1.ConfigMap); ok && cm.Name == "a" && ev.Type == watch.Added && cm.Data["k"] == "v" {
			return
		} else if !ok {
			t.Fatalf("watched %+v", ev)
		}
	}
	t.Error("the watch ended before the object came")
}

// Bodies in CBOR that are broken are errors that name what is wrong.
func TestBadCBOR(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	encoded := func(v any) string {
		b, err := direct.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	deep := strings.Repeat("\x81", 100_000) + "\x00"
	for name, test := range map[string]struct {
		body string
		code int
		text string
	}{
		"not CBOR":      {"\xff\xff", 400, "the object provided is unrecognized"},
		"deep":          {deep, 400, "exceeded max nested level"},
		"huge array":    {"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", 400, "exceeded max number of elements"},
		"wrong type":    {encoded(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"a": 1}}), 400, "cannot be handled as a ConfigMap"},
		"unknown field": {encoded(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "dta": map[string]any{}}), 400, "strict decoding error"},
		"other kind":    {encoded(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "a"}}), 400, "Pod in version"},
	} {
		a := h.do("POST", configMaps+"?fieldValidation=Strict", test.body, "Content-Type: application/cbor")
		if a.code != test.code || !strings.Contains(a.body, test.text) {
			t.Errorf("%s: %d %s", name, a.code, a.body)
		}
	}
}
