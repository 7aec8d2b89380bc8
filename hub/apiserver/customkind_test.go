package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/gc"
	"petrel.dev/petrel/hub/control/namespace"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

var (
	widgetGVK = schema.GroupVersionKind{Group: "example.dev", Version: "v1", Kind: "Widget"}
	widgetGVR = widgetGVK.GroupVersion().WithResource("widgets")
)

const widgets = "/apis/example.dev/v1/namespaces/default/widgets"

// colored is the schema of Widgets: a spec with a size and a color, which is red unless something else is said.
type colored struct{}

func (colored) Prune(obj map[string]any, _ bool) (paths []string, err error) {
	spec, _ := obj["spec"].(map[string]any)
	for name := range spec {
		if name != "size" && name != "color" {
			delete(spec, name)
			paths = append(paths, "spec."+name)
		}
	}
	return paths, nil
}

func (colored) Default(obj map[string]any) {
	if spec, ok := obj["spec"].(map[string]any); ok && spec["color"] == nil {
		spec["color"] = "red"
	}
}

func (s colored) ValidateStatus(ctx context.Context, obj, old map[string]any) field.ErrorList {
	return s.Validate(ctx, obj, old)
}

func (colored) Validate(_ context.Context, obj, _ map[string]any) field.ErrorList {
	if n, _, err := unstructured.NestedInt64(obj, "spec", "size"); err != nil || n < 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "size"), n, "must be a number that is not negative")}
	}
	return nil
}

func widgetKind() *resource.Kind {
	return resource.Custom{GVK: widgetGVK, Plural: "widgets", Singular: "widget", ShortNames: []string{"wd"}, Namespaced: true, Schema: colored{}}.Kind()
}

// customHub is a hub with the loops that have to do with every kind.
func customHub(t *testing.T) (*hub, dynamic.Interface) {
	h := newHub(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	c, kinds := h.reg.Client(), h.reg.StoredKinds()
	for _, r := range []interface{ Run(context.Context) error }{
		gc.New(gc.Config{Client: c, Events: &controltest.Events{}, Kinds: kinds}),
		namespace.New(namespace.Config{Client: c, Kinds: kinds}),
	} {
		wg.Go(func() { _ = r.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	dyn, err := dynamic.NewForConfig(h.config)
	if err != nil {
		t.Fatal(err)
	}
	return h, dyn
}

func (h *hub) addWidgets() {
	h.t.Helper()
	if err := h.kinds.Add(widgetKind()); err != nil {
		h.t.Fatal(err)
	}
}

func newWidget(name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if spec != nil {
		u.Object["spec"] = spec
	}
	u.SetGroupVersionKind(widgetGVK)
	u.SetName(name)
	return u
}

func ownedBy(owner kube.Object, gvk schema.GroupVersionKind) []metav1.OwnerReference {
	return []metav1.OwnerReference{*metav1.NewControllerRef(owner, gvk)}
}

// eventually waits for what the hub does by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// notServed checks that a request is answered as one for a path that does not exist.
func notServed(t *testing.T, err error) {
	t.Helper()
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "could not find the requested resource") {
		t.Errorf("got %v, want that the resource could not be found", err)
	}
}

// nextEvent is the next event of a watch but bookmarks; ok is false when the watch has ended.
func nextEvent(t *testing.T, w watch.Interface) (e watch.Event, ok bool) {
	t.Helper()
	select {
	case e, ok = <-w.ResultChan():
		return e, ok
	case <-time.After(time.Minute):
		t.Fatal("no event")
	}
	return e, ok
}

// A kind that no Go type stands behind is added to a hub that runs, and has all verbs.
func TestCustomKindVerbs(t *testing.T) {
	t.Parallel()
	h, dyn := customHub(t)
	ctx := t.Context()
	c := dyn.Resource(widgetGVR).Namespace("default")
	_, err := c.List(ctx, metav1.ListOptions{})
	notServed(t, err)
	h.addWidgets()

	before, err := c.List(ctx, metav1.ListOptions{})
	if err != nil || before.GetKind() != "WidgetList" || len(before.Items) != 0 {
		t.Fatal(before, err)
	}
	w, err := c.Watch(ctx, metav1.ListOptions{ResourceVersion: before.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	a := newWidget("a", map[string]any{"size": int64(3)})
	a.Object["aaa"] = map[string]any{"resourceVersion": "7"}
	a.SetAnnotations(map[string]string{"note": `"resourceVersion":"8"`})
	a.SetLabels(map[string]string{"app": "x"})
	made, err := c.Create(ctx, a, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if color, _, _ := unstructured.NestedString(made.Object, "spec", "color"); made.GetUID() == "" || made.GetGeneration() != 1 || color != "red" || made.GetResourceVersion() == "" {
		t.Errorf("created: %v", made)
	}
	got, err := c.Get(ctx, "a", metav1.GetOptions{})
	if err != nil || got.GetResourceVersion() != made.GetResourceVersion() || got.Object["aaa"] == nil {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = c.Create(ctx, a, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("created twice: %v", err)
	}

	updated := got.DeepCopy()
	_ = unstructured.SetNestedField(updated.Object, int64(4), "spec", "size")
	if updated, err = c.Update(ctx, updated, metav1.UpdateOptions{}); err != nil || updated.GetGeneration() != 2 {
		t.Fatalf("updated: %v, %v", updated, err)
	}
	if _, err := c.Update(ctx, got, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an old update: %v", err)
	}
	blind := updated.DeepCopy()
	blind.SetResourceVersion("")
	if _, err := c.Update(ctx, blind, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an update of no revision: %v", err)
	}
	patched, err := c.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"color":"blue"},"metadata":{"labels":{"app":"y"}}}`), metav1.PatchOptions{})
	if err != nil || patched.GetLabels()["app"] != "y" || patched.GetGeneration() != 3 {
		t.Errorf("merge patch: %v, %v", patched, err)
	}
	if patched, err = c.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/size","value":5}]`), metav1.PatchOptions{}); err != nil || patched.GetGeneration() != 4 {
		t.Errorf("JSON patch: %v, %v", patched, err)
	}
	if dry, err := c.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"size":-1}}`), metav1.PatchOptions{DryRun: []string{"All"}}); !apierrors.IsInvalid(err) {
		t.Errorf("a patch that the schema refuses: %v, %v", dry, err)
	}

	last := ""
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Modified, watch.Modified} {
		e, ok := nextEvent(t, w)
		obj, isObject := e.Object.(*unstructured.Unstructured)
		if !ok || e.Type != want || !isObject || obj.GetName() != "a" || obj.GetResourceVersion() == last {
			t.Fatalf("watched %s %v, want %s", e.Type, e.Object, want)
		}
		last = obj.GetResourceVersion()
	}
	if last != patched.GetResourceVersion() {
		t.Errorf("the watch ends with revision %s, the object has %s", last, patched.GetResourceVersion())
	}

	for i, app := range []string{"z", "z", "y"} {
		b := newWidget(fmt.Sprint("b", i), nil)
		b.SetLabels(map[string]string{"app": app})
		if _, err := c.Create(ctx, b, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	named, err := c.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=b1", LabelSelector: "app=z"})
	if err != nil || len(named.Items) != 1 {
		t.Errorf("selected: %v, %v", named, err)
	}
	if _, err := c.List(ctx, metav1.ListOptions{FieldSelector: "spec.size=5"}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "field label not supported: spec.size") {
		t.Errorf("an unknown field selector: %v", err)
	}
	if err := c.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=z"}); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if left, err := c.List(ctx, metav1.ListOptions{}); err != nil || len(left.Items) != 1 || left.Items[0].GetName() != "b2" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What such a kind cannot have is refused in upstream's words, and what it can have works in every form.
func TestCustomKindForms(t *testing.T) {
	t.Parallel()
	h, _ := customHub(t)
	h.addWidgets()
	const js, merge = "Content-Type: application/json", "Content-Type: application/merge-patch+json"
	body := func(name, more string) string {
		return `{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{"name":"` + name + `"}` + more + `}`
	}
	const patchTypes = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json"
	for _, tt := range []struct {
		name, method, path, body, header string
		code                             int
		says                             string
	}{
		{"create", "POST", widgets, body("a", `,"spec":{"size":1}`), js, 201, `"color":"red"`},
		{"create from YAML", "POST", widgets, "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: yam}\nspec: {size: 2}\n", "Content-Type: application/yaml", 201, `"size":2`},
		{"strategic merge patch", "PATCH", widgets + "/a", `{}`, "Content-Type: application/strategic-merge-patch+json", 415, patchTypes},
		{"protobuf", "POST", widgets, "k8s\x00", "Content-Type: application/vnd.kubernetes.protobuf", 415, "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml"},
		{"answer in protobuf", "GET", widgets + "/a", "", "Accept: application/vnd.kubernetes.protobuf", 406, "only the following media types are accepted: application/json, application/yaml"},
		{"protobuf or JSON", "GET", widgets + "/a", "", "Accept: application/vnd.kubernetes.protobuf,application/json", 200, `"kind":"Widget"`},
		{"answer in YAML", "GET", widgets + "/a", "", "Accept: application/yaml", 200, "kind: Widget"},
		{"no kind", "POST", widgets, `{"metadata":{"name":"b"}}`, js, 400, "the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in "},
		{"another version", "POST", widgets, `{"apiVersion":"example.dev/v2","kind":"Widget","metadata":{"name":"b"}}`, js, 400, "the API version in the data (example.dev/v2) does not match the expected API version (example.dev/v1)"},
		{"another kind", "POST", widgets, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}`, js, 400, `Pod in version "v1" cannot be handled as a Widget`},
		{"unknown field, strict", "POST", widgets + "?fieldValidation=Strict", body("b", `,"spec":{"shape":"round","size":1,"size":2}`), js, 400,
			`Widget in version "v1" cannot be handled as a Widget: strict decoding error: duplicate field "spec.size", unknown field "spec.shape"`},
		{"unknown field of metadata, strict", "POST", widgets + "?fieldValidation=Strict", `{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{"name":"b","nmae":"c"}}`, js, 400, `strict decoding error: unknown field "metadata.nmae"`},
		{"labels that are none", "POST", widgets, `{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{"name":"b","labels":{"a":1}}}`, js, 400, `Widget in version "v1" cannot be handled as a Widget: json: cannot unmarshal number`},
		{"unknown field in a patch, strict", "PATCH", widgets + "/a?fieldValidation=Strict", `{"spec":{"shape":"round"}}`, merge, 422, `strict decoding error: unknown field "spec.shape"`},
		{"refused by the schema", "POST", widgets, body("b", `,"spec":{"size":-1}`), js, 422, `Widget.example.dev "b" is invalid: spec.size: Invalid value: -1: must be a number that is not negative`},
		{"bad name", "POST", widgets, body("A_b", ""), js, 422, "a lowercase RFC 1123 subdomain must consist of"},
		{"metadata alone", "GET", widgets + "/a", "", "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", 200, `"kind":"PartialObjectMetadata"`},
	} {
		a := h.do(tt.method, tt.path, tt.body, tt.header)
		text := a.body
		if a.code >= 400 {
			var s metav1.Status
			if _, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(a.body), nil, &s); err != nil { // in protobuf for who accepts that alone
				t.Errorf("%s: %q is no Status", tt.name, a.body)
			}
			text = s.Message
		}
		if a.code != tt.code || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %d %s, want %d %s", tt.name, a.code, text, tt.code, tt.says)
		}
	}
	warned := h.do("POST", widgets, body("warned", `,"spec":{"shape":"round"}`), js)
	if ws := warned.header.Values("Warning"); warned.code != 201 || len(ws) != 1 || !strings.Contains(ws[0], `unknown field \"spec.shape\"`) || strings.Contains(warned.body, "round") {
		t.Errorf("an unknown field by default: %d %q %s", warned.code, ws, warned.body)
	}

	table := h.do("GET", widgets, "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1")
	var rows metav1.Table
	if err := json.Unmarshal([]byte(table.body), &rows); err != nil || len(rows.Rows) != 3 || len(rows.ColumnDefinitions) != 2 || rows.ColumnDefinitions[0].Name != "Name" || rows.ColumnDefinitions[1].Name != "Age" {
		t.Errorf("table: %s", table.body)
	}
	protobuf := rest.CopyConfig(h.config)
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	m, err := metadata.NewForConfig(protobuf)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := m.Resource(widgetGVR).Namespace("default").List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 3 || list.Items[0].Name != "a" {
		t.Errorf("metadata in protobuf: %v, %v", list, err)
	}
}

// Discovery, OpenAPI and the real kubectl take in a kind that comes while the hub runs.
func TestCustomKindWithKubectl(t *testing.T) {
	t.Parallel()
	h, _ := customHub(t)
	d := h.client().Discovery()
	if _, err := d.ServerResourcesForGroupVersion("example.dev/v1"); !apierrors.IsNotFound(err) {
		t.Errorf("discovered before it is served: %v", err)
	}
	h.addWidgets()
	list, err := d.ServerResourcesForGroupVersion("example.dev/v1")
	if err != nil || len(list.APIResources) != 1 || list.APIResources[0].Kind != "Widget" || !slices.Contains(list.APIResources[0].Verbs, "deletecollection") {
		t.Fatalf("discovered: %v, %v", list, err)
	}
	step := func(stdin, want string, args ...string) {
		t.Helper()
		if out, code := h.kubectl(stdin, args...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("kubectl %s: code %d, %s", strings.Join(args, " "), code, out)
		}
	}
	manifest := func(size int) string {
		return fmt.Sprintf("apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: web}\nspec: {size: %d}\n", size)
	}
	step("", "widgets", "api-resources", "--api-group=example.dev")
	step(manifest(1), "widget.example.dev/web created", "apply", "-f", "-")
	step(manifest(2), "widget.example.dev/web configured", "apply", "-f", "-")
	step(manifest(2), "widget.example.dev/web unchanged", "apply", "-f", "-")
	step("", "2", "get", "wd", "web", "-o", "jsonpath={.spec.size}")
	step("", "NAME   AGE", "get", "widgets")
	step("", "Widget", "explain", "widget")
	step("", "widget.example.dev/web labeled", "label", "widget", "web", "a=b")
	step("", `widget.example.dev "web" deleted`, "delete", "widget", "web")
	h.kinds.Remove(widgetGVK)
	if out, code := h.kubectl("", "get", "widgets"); code == 0 || !strings.Contains(out, "the server") {
		t.Errorf("kubectl get of a kind that is gone: code %d, %s", code, out)
	}
	if out, code := h.kubectl("", "get", "--raw", "/openapi/v2"); code != 0 || strings.Contains(out, "dev.example.v1.Widget") {
		t.Errorf("OpenAPI after it has gone: code %d", code)
	}
}
