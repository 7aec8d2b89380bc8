package registry_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// boatVersions converts between v1, which has spec.crew, and v2, which has spec.team.
type boatVersions struct{}

func (boatVersions) Schema(context.Context, string) (resource.Schema, error) { return nil, nil }

func (boatVersions) Convert(_ context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	names := map[string]string{"v1": "crew", "v2": "team"}
	for _, u := range objs {
		from := names[u.GroupVersionKind().Version]
		if v, ok, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", from); ok && from != names[to.Version] {
			unstructured.RemoveNestedField(u.Object, "spec", from)
			if err := unstructured.SetNestedField(u.Object, v, "spec", names[to.Version]); err != nil {
				return nil, err
			}
		}
		u.SetAPIVersion(to.String())
	}
	return objs, nil
}

// boat describes a custom kind with a list that is a map by name, called crew or team, and a free object.
func boat(t *testing.T, version, list string) resource.Custom {
	gvk := schema.GroupVersionKind{Group: "example.dev", Version: version, Kind: "Boat"}
	return resource.Custom{GVK: gvk, Plural: "boats", Singular: "boat", Namespaced: true, Status: true, Versions: boatVersions{},
		TypeConverter: func() (managedfields.TypeConverter, error) {
			s := &spec.Schema{}
			if err := json.Unmarshal([]byte(`{"type":"object","x-kubernetes-group-version-kind":[{"group":"example.dev","version":"`+version+`","kind":"Boat"}],
				"properties":{"apiVersion":{"type":"string"},"kind":{"type":"string"},"metadata":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
				"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
				"spec":{"type":"object","properties":{"free":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
				"`+list+`":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],
				"items":{"type":"object","properties":{"name":{"type":"string"},"rank":{"type":"string"}}}}}}}}`), s); err != nil {
				t.Fatal(err)
			}
			return managedfields.NewTypeConverter(map[string]*spec.Schema{"boat": s}, false)
		}}
}

func TestApplyCustomKind(t *testing.T) {
	kinds := registrytest.Kinds()
	v1 := boat(t, "v1", "crew").Kind()
	second := boat(t, "v2", "team")
	second.StoredAs = v1
	v2 := second.Kind()
	if err := kinds.Add(v1, v2); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	apply := func(k *resource.Kind, sub, manager, body string) (*registry.Result, error) {
		return r.Patch(ctx, resource.Target{Kind: k, Namespace: "default", Name: "b", Subresource: sub}, types.ApplyYAMLPatchType, []byte(body), &metav1.PatchOptions{FieldManager: manager})
	}
	must := func(k *resource.Kind, sub, manager, body string) []byte {
		t.Helper()
		res, err := apply(k, sub, manager, body)
		if err != nil {
			t.Fatal(err)
		}
		return res.JSON
	}
	const one = `{"apiVersion":"example.dev/v1","kind":"Boat","metadata":{"name":"b"},"spec":`
	const two = `{"apiVersion":"example.dev/v2","kind":"Boat","metadata":{"name":"b"},"spec":`
	must(v1, "", "one", one+`{"crew":[{"name":"ann","rank":"mate"}],"free":{"n":5}},"status":{"x":1}}`)
	out := must(v1, "", "two", one+`{"crew":[{"name":"bob"}]}}`)
	const ann = `one Apply example.dev/v1 {"f:spec":{"f:crew":{"k:{\"name\":\"ann\"}":{".":{},"f:name":{},"f:rank":{}}},"f:free":{"f:n":{}}}}`
	wantManagers(t, out, ann, `two Apply example.dev/v1 {"f:spec":{"f:crew":{"k:{\"name\":\"bob\"}":{".":{},"f:name":{}}}}}`)
	if !strings.Contains(string(out), `"free":{"n":5}`) || strings.Contains(string(out), `"status"`) {
		t.Errorf("the object is %s", out)
	}

	// The same manager goes on in another version; what it managed in the first is what it manages in the second.
	out = must(v2, "", "two", two+`{"team":[{"name":"cid"}]}}`)
	wantManagers(t, out, ann, `two Apply example.dev/v2 {"f:spec":{"f:team":{"k:{\"name\":\"cid\"}":{".":{},"f:name":{}}}}}`)
	if s := string(out); strings.Contains(s, "bob") || !strings.Contains(s, "ann") || !strings.Contains(s, `"team":[`) {
		t.Errorf("the object is %s", s)
	}
	_, err := apply(v2, "", "two", two+`{"team":[{"name":"ann","rank":"captain"}]}}`)
	registrytest.WantError(t, err, 409, `Apply failed with 1 conflict: conflict with "one": .spec.crew[name="ann"].rank`)
	_, err = apply(v1, "", "two", one+`{"crew":[],"sails":2}}`)
	registrytest.WantError(t, err, 500, `failed to create typed patch object (/b; example.dev/v1, Kind=Boat): .spec.sails: field not declared in schema`)
	_, err = apply(v1, "", "two", one+`{"crew":[{"name":"x"},{"name":"x"}]}}`)
	registrytest.WantError(t, err, 500, `.spec.crew: duplicate entries for key [name="x"]`)
	_, err = apply(v1, "", "two", two+`{}}`)
	registrytest.WantError(t, err, 400, `invalid object type: example.dev/v2, Kind=Boat`)

	out = must(v1, "status", "controller", `{"apiVersion":"example.dev/v1","kind":"Boat","metadata":{"name":"b","labels":{"a":"b"}},"spec":{"free":{"m":1}},"status":{"afloat":true}}`)
	if s := string(out); !strings.Contains(s, `"status":{"afloat":true}`) || strings.Contains(s, `"labels"`) || strings.Contains(s, `"m":1`) {
		t.Errorf("the object is %s", s)
	}
	if got := managers(t, out); !strings.Contains(got, `controller Apply example.dev/v1/status {"f:status":{"f:afloat":{}}}`) {
		t.Errorf("managers are\n%s", got)
	}
}

// A kind that nobody describes is deduced from its objects: objects merge, lists are one value.
func TestApplyDeducedKind(t *testing.T) {
	kinds := registrytest.Kinds()
	k := resource.Custom{GVK: widgetGVK, Plural: "widgets", Singular: "widget", Namespaced: true}.Kind()
	if err := kinds.Add(k); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	for _, step := range []struct{ manager, spec, want string }{
		{"one", `{"a":{"b":1},"l":[{"name":"x"}]}`, `"spec":{"a":{"b":1},"l":[{"name":"x"}]}`},
		{"two", `{"a":{"c":2}}`, `"spec":{"a":{"b":1,"c":2},"l":[{"name":"x"}]}`},
		{"one", `{"l":[{"name":"y"}]}`, `"spec":{"a":{"c":2},"l":[{"name":"y"}]}`},
	} {
		body := `{"apiVersion":"` + widgetGVK.GroupVersion().String() + `","kind":"` + widgetGVK.Kind + `","metadata":{"name":"w"},"spec":` + step.spec + `}`
		res, err := r.Patch(ctx, resource.Target{Kind: k, Namespace: "default", Name: "w"}, types.ApplyYAMLPatchType, []byte(body), &metav1.PatchOptions{FieldManager: step.manager})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(res.JSON), step.want) {
			t.Errorf("%s applies %s: %s", step.manager, step.spec, res.JSON)
		}
	}
}

// A view and what it is a view of have the same managers, each in the version that it used.
func TestApplyThroughAView(t *testing.T) {
	r := registrytest.New(t)
	core := applier{t: t, r: r, kind: kube.Event, name: "e"}
	view := applier{t: t, r: r, kind: schema.GroupVersionKind{Group: "events.k8s.io", Version: "v1", Kind: "Event"}, name: "e"}
	out := view.apply("one", `{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"e"},"eventTime":"2026-01-01T00:00:00.000000Z","reportingController":"x/y",
		"reportingInstance":"i","action":"a","reason":"r","type":"Normal","note":"first","regarding":{"namespace":"default"}}`)
	if got := managers(t, out.JSON); !strings.HasPrefix(got, "one Apply events.k8s.io/v1 ") || !strings.Contains(got, `"f:note":{}`) {
		t.Errorf("managers are\n%s", got)
	}
	s := core.refused("two", `{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"message":"second"}`)
	if s.Message != `Apply failed with 1 conflict: conflict with "one": .note` {
		t.Errorf("%q", s.Message)
	}
}

// The hub's own loops are managers of what they change in a tracked object, and of nothing in others.
func TestLoopsAreManagers(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.Deployment, name: "web"}
	a.apply("owner", webDeployment)
	loop := a.r.ClientAs(auth.Controller("deployment-controller"))
	d := registrytest.Decode[appsv1.Deployment](t, a.now())
	d.Status.ObservedGeneration = 1
	if _, err := loop.Update(ctx, d, "status"); err != nil {
		t.Fatal(err)
	}
	if got := managers(t, a.now()); !strings.HasSuffix(got, "kube-controller-manager Update apps/v1/status {\"f:status\":{\"f:observedGeneration\":{}}}\n") {
		t.Errorf("managers are\n%s", got)
	}
}

// An object that is too large only with the record of its managers is stored without.
func TestTooLargeWithManagers(t *testing.T) {
	kinds := registrytest.Kinds()
	k := resource.Custom{GVK: widgetGVK, Plural: "widgets", Singular: "widget", Namespaced: true}.Kind()
	if err := kinds.Add(k); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	target := resource.Target{Kind: k, Namespace: "default", Name: "w"}
	res, err := r.Patch(ctx, target, types.ApplyYAMLPatchType, []byte(`{"apiVersion":"`+widgetGVK.GroupVersion().String()+`","kind":"`+widgetGVK.Kind+`","metadata":{"name":"w"},"spec":{"a":"1"}}`),
		&metav1.PatchOptions{FieldManager: "one"})
	if err != nil {
		t.Fatal(err)
	}
	w := registrytest.Decode[unstructured.Unstructured](t, res.JSON)
	const limit, step = 3 << 20, 80
	without := false
	for size := limit - 800; !without && size < limit; size += step {
		w.Object["spec"] = map[string]any{"b": strings.Repeat("x", size)}
		res, err := r.Update(ctx, target, w.DeepCopy(), &metav1.UpdateOptions{FieldManager: "editor"})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		w = registrytest.Decode[unstructured.Unstructured](t, res.JSON)
		without = len(w.GetManagedFields()) == 0
	}
	if !without {
		t.Error("no object was too large with its managers")
	}
}
