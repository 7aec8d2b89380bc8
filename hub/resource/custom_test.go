package resource_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

var widgetGVK = schema.GroupVersionKind{Group: "example.dev", Version: "v1", Kind: "Widget"}

// sized is the schema of objects with a spec.size from 1 to 9 (default 1) and a status, and nothing else.
type sized struct{}

func (sized) Prune(obj map[string]any, _ bool) (paths []string, err error) {
	for name := range obj {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "spec", "status"}, name) {
			delete(obj, name)
			paths = append(paths, name)
		}
	}
	spec, _ := obj["spec"].(map[string]any)
	for name := range spec {
		if name != "size" {
			delete(spec, name)
			paths = append(paths, "spec."+name)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

func (sized) Default(obj map[string]any) {
	if obj["spec"] == nil {
		obj["spec"] = map[string]any{"size": int64(1)}
	}
}

func (s sized) ValidateStatus(ctx context.Context, obj, old map[string]any) field.ErrorList {
	return s.Validate(ctx, obj, old)
}

func (sized) Validate(_ context.Context, obj, _ map[string]any) field.ErrorList {
	if n, ok, err := unstructured.NestedInt64(obj, "spec", "size"); err != nil || !ok || n < 1 || n > 9 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "size"), n, "must be 1 to 9")}
	}
	return nil
}

// content returns the fields of an object of a custom kind.
func content(obj kube.Object) map[string]any { return obj.(*unstructured.Unstructured).Object }

func widgetKind() *resource.Kind {
	return resource.Custom{GVK: widgetGVK, Plural: "widgets", Singular: "widget", Namespaced: true, Schema: sized{}, Status: true}.Kind()
}

func widget(t *testing.T, k *resource.Kind, text string) kube.Object {
	t.Helper()
	obj, forgiven, err := k.DecodeStrict([]byte(text))
	if err != nil || len(forgiven) > 0 {
		t.Fatalf("%s: %v %v", text, forgiven, err)
	}
	return obj
}

// Whatever people put into whatever field, the hole for the revision is metadata's own field, and the first that looks like it.
func TestEncodeUnstructuredFindsRevision(t *testing.T) {
	k := resource.Custom{GVK: widgetGVK, Plural: "widgets"}.Kind()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"resourceVersion", "?", `"resourceVersion":"?"`, `\"resourceVersion":"`, "metadata", "aaa"}))
		anything := map[string]any{text.Draw(t, "key"): text.Draw(t, "value"), "resourceVersion": "?"}
		obj := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.dev/v1", "kind": "Widget", "Spec": map[string]any{"resourceVersion": "7"}, "aaa": anything,
		}}
		if name := text.Draw(t, "field"); name != "metadata" && name != "kind" && name != "apiVersion" {
			obj.Object[name] = anything
		}
		obj.SetName("a")
		obj.SetResourceVersion("12")
		obj.SetAnnotations(map[string]string{"resourceVersion": "?", text.Draw(t, "annotation"): text.Draw(t, "its value")})
		before := obj.DeepCopy()
		data, at, err := k.Codec.Encode(obj)
		if err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(before, obj) {
			t.Fatal("Encode changed its argument")
		}
		if first := bytes.Index(data, []byte(`"resourceVersion":"`)); first+len(`"resourceVersion":"`) != at {
			t.Fatalf("the hole is at %d: %s", at, data)
		}
		stored := slices.Insert(data, at, []byte("99")...)
		got, err := k.Codec.Decode(stored)
		if err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		before.SetResourceVersion("99")
		var want map[string]any // strings that are no UTF-8 are not what they were in JSON
		b, _ := json.Marshal(before)
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, content(got)); d != "" {
			t.Fatalf("%s\n%s", stored, d)
		}
	})
}

// A body gets the form of what is stored: fields that the kind does not have are dropped and named, metadata is as every kind's.
func TestUnstructuredBodiesConform(t *testing.T) {
	k := widgetKind()
	obj, forgiven, err := k.DecodeStrict([]byte(`{"metadata":{"name":"a","color":"red","creationTimestamp":null,"labels":{}},"spec":{"size":2,"size":3,"shape":"round"},"more":1}`))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range forgiven {
		texts = append(texts, e.Error())
	}
	if want := []string{`duplicate field "spec.size"`, `unknown field "more"`, `unknown field "spec.shape"`, `unknown field "metadata.color"`}; !slices.Equal(texts, want) {
		t.Errorf("forgiven: %q, want %q", texts, want)
	}
	want := map[string]any{"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": map[string]any{"name": "a"}, "spec": map[string]any{"size": int64(3)}}
	if d := cmp.Diff(want, content(obj)); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{`{"metadata":{"labels":{"a":1}}}`, `{"metadata":7}`, `{"metadata":{"deletionTimestamp":"yesterday"}}`, `[]`, `7`, `{`} {
		if obj, _, err := k.DecodeStrict([]byte(bad)); err == nil {
			t.Errorf("%s is accepted as %v", bad, obj)
		}
	}
	// What was stored under another schema loses what this one does not have, without a complaint.
	raw, err := k.Codec.Decode([]byte(`{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{"resourceVersion":"4","name":"a"},"spec":{"size":2,"shape":"round"}}`))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := k.FromStored(t.Context(), raw)
	if err != nil || !cmp.Equal(content(stored[0])["spec"], any(map[string]any{"size": int64(2)})) || stored[0].GetResourceVersion() != "4" {
		t.Errorf("%v, %v", stored, err)
	}
	for _, bad := range []string{`null`, `[]`, ``} {
		if obj, err := k.Codec.Decode([]byte(bad)); err == nil {
			t.Errorf("stored %q is %v", bad, obj)
		}
	}
}

// TestCustomKindRules creates, changes and shows a Widget. The clock stands: an age counts from the begin of the second of creation.
func TestCustomKindRules(t *testing.T) {
	synctest.Test(t, customKindRules)
}

func customKindRules(t *testing.T) {
	ctx := context.Background()
	k := widgetKind()
	obj := widget(t, k, `{"metadata":{"name":"a","namespace":"ns"},"status":{"ready":true}}`)
	if errs := resourcetest.Create(k, obj); len(errs) > 0 {
		t.Fatalf("refused: %q", errs)
	}
	if n, _, _ := unstructured.NestedInt64(content(obj), "spec", "size"); n != 1 || obj.GetGeneration() != 1 || content(obj)["status"] != nil {
		t.Errorf("created as %v", obj)
	}
	for text, want := range map[string]string{
		`{"metadata":{"name":"a","namespace":"ns"},"spec":{"size":10}}`: "spec.size: Invalid value: 10: must be 1 to 9",
		`{"metadata":{"name":"A_b","namespace":"ns"}}`:                  "metadata.name: Invalid value",
	} {
		if errs := resourcetest.Create(k, widget(t, k, text)); len(errs) != 1 || !strings.HasPrefix(errs[0], want) {
			t.Errorf("%s: %q, want %q", text, errs, want)
		}
	}
	change := func(r *resource.Rules, set func(kube.Object)) kube.Object {
		t.Helper()
		next := obj.DeepCopyObject().(kube.Object)
		set(next)
		if errs := resourcetest.Update(r, next, obj); len(errs) > 0 {
			t.Fatalf("refused: %q", errs)
		}
		return next
	}
	labelled := change(&k.Rules, func(o kube.Object) {
		o.SetLabels(map[string]string{"x": "y"})
		content(o)["status"] = map[string]any{"ready": true}
	})
	if labelled.GetGeneration() != 1 || content(labelled)["status"] != nil {
		t.Errorf("a label, and a status by the wrong way: %v", labelled)
	}
	grown := change(&k.Rules, func(o kube.Object) { content(o)["spec"] = map[string]any{"size": int64(2)} })
	if grown.GetGeneration() != 2 {
		t.Errorf("a change of spec: %v", grown)
	}
	status := k.Subresources["status"].Rules
	ready := change(status, func(o kube.Object) {
		content(o)["status"], content(o)["spec"] = map[string]any{"ready": true}, map[string]any{"size": int64(5)}
		o.SetLabels(map[string]string{"x": "y"})
	})
	if n, _, _ := unstructured.NestedInt64(content(ready), "spec", "size"); n != 1 || len(ready.GetLabels()) != 0 || content(ready)["status"] == nil || ready.GetGeneration() != 1 {
		t.Errorf("a change of status: %v", ready)
	}
	table, err := k.Table(ctx, []kube.Object{obj, widget(t, k, `{}`)}, nil)
	if err != nil || len(table.Rows) != 2 || len(table.ColumnDefinitions) != 2 || table.Rows[0].Cells[0] != "a" || table.Rows[0].Cells[1] != "0s" || table.Rows[1].Cells[1] != "<unknown>" {
		t.Errorf("%+v, %v", table, err)
	}
	if table, err := k.Table(ctx, nil, &metav1.TableOptions{NoHeaders: true}); err != nil || table.Rows == nil || table.ColumnDefinitions != nil {
		t.Errorf("without headers: %+v, %v", table, err)
	}
	v2 := schema.GroupVersion{Group: "example.dev", Version: "v2"}
	if out, err := k.Codec.Convert(ctx, []kube.Object{obj}, v2); err != nil || out[0].GetObjectKind().GroupVersionKind() != v2.WithKind("Widget") || obj.GetObjectKind().GroupVersionKind() != widgetGVK {
		t.Errorf("converted to %v, %v", out, err)
	}
}

// Whatever a client sends as a Widget either is refused or is one that can be stored, read again and written the same.
func FuzzUnstructuredBody(f *testing.F) {
	for _, seed := range []string{
		`{"metadata":{"name":"a"},"spec":{"size":2}}`, `{"metadata":{"name":"a","labels":{"a":"b"},"ownerReferences":[{"uid":"x"}]},"status":null}`,
		`{"apiVersion":7,"kind":[],"metadata":null,"aaa":{"resourceVersion":"?"}}`, `{"metadata":{"resourceVersion":"\"?"},"spec":-0.0}`, `[]`, `null`,
		`{"metadata":{"creationTimestamp":"2026-01-01T00:00:00Z","generation":1.5}}`, `{"metadata":{"annotations":{"\u0000":"\ud800"}}}`,
	} {
		f.Add([]byte(seed))
	}
	k := resource.Custom{GVK: widgetGVK, Plural: "widgets"}.Kind()
	f.Fuzz(func(t *testing.T, body []byte) {
		obj, _, err := k.DecodeStrict(body)
		if err != nil {
			return
		}
		data, at, err := k.Codec.Encode(obj)
		if err != nil {
			t.Fatal(err)
		}
		stored := slices.Insert(slices.Clone(data), at, []byte("7")...)
		again, err := k.Codec.Decode(stored)
		if err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		if again.GetResourceVersion() != "7" || again.GetObjectKind().GroupVersionKind() != widgetGVK || again.GetName() != obj.GetName() {
			t.Fatalf("%s is read as %v", stored, again)
		}
		again.DeepCopyObject()
		// A number may get a shorter form, once: -0.0 is read again as 0.
		second, secondAt, err := k.Codec.Encode(again)
		if err != nil || secondAt != at {
			t.Fatalf("written again as %s, %v", second, err)
		}
		third, err := k.Codec.Decode(slices.Insert(slices.Clone(second), at, []byte("7")...))
		if err != nil {
			t.Fatal(err)
		}
		if last, _, err := k.Codec.Encode(third); err != nil || !bytes.Equal(last, second) {
			t.Fatalf("%s does not stay what it is: %s, %v", second, last, err)
		}
	})
}
