package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

const (
	jsonPatch      = types.JSONPatchType
	mergePatch     = types.MergePatchType
	strategicPatch = types.StrategicMergePatchType
)

func TestPatch(t *testing.T) {
	for name, test := range map[string]struct {
		kind  types.PatchType
		patch string
		want  string // of the containers and labels afterwards
	}{
		"json":               {jsonPatch, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"new"}]`, "c=new app"},
		"json test":          {jsonPatch, `[{"op":"test","path":"/metadata/name","value":"web"},{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`, "c=registry.example/c:1 app x"},
		"merge":              {mergePatch, `{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"d"}]}}}}`, "d=d app"},
		"strategic adds":     {strategicPatch, `{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"d"}]}}}}`, "d=d c=registry.example/c:1 app"},
		"strategic changes":  {strategicPatch, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"new"}]}}}}`, "c=new app"},
		"strategic removes":  {strategicPatch, `{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"d"},{"name":"c","$patch":"delete"}]}}}}`, "d=d app"},
		"changes nothing":    {mergePatch, `{}`, "c=registry.example/c:1 app"},
		"with its own rv":    {mergePatch, `{"metadata":{"resourceVersion":"1","labels":{"x":"y"}}}`, "c=registry.example/c:1 app x"},
		"status is not here": {mergePatch, `{"status":{"replicas":9}}`, "c=registry.example/c:1 app"},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			registrytest.Create(t, r, deployment("web"))
			res, err := r.Patch(ctx, registrytest.Target(t, kube.Deployment, "default", "web"), test.kind, []byte(test.patch), nil)
			if err != nil {
				t.Fatal(err)
			}
			d := registrytest.Decode[appsv1.Deployment](t, res.JSON)
			var got []string
			for _, c := range d.Spec.Template.Spec.Containers {
				got = append(got, c.Name+"="+c.Image)
			}
			for k := range d.Spec.Selector.MatchLabels {
				got = append(got, k)
			}
			for k := range d.Labels {
				got = append(got, k)
			}
			if s := strings.Join(got, " "); s != test.want || d.Status.Replicas != 0 || d.Kind != "Deployment" {
				t.Errorf("patched to %q, want %q", s, test.want)
			}
		})
	}
}

func TestPatchRefuses(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, configMap("a", "k", "v"))
	strict := &metav1.PatchOptions{FieldValidation: "Strict"}
	for name, test := range map[string]struct {
		url   string
		kind  types.PatchType
		patch string
		opts  *metav1.PatchOptions
		code  int32
		text  string
	}{
		"missing":           {"z", mergePatch, `{}`, nil, 404, `configmaps "z" not found`},
		"no json":           {"a", mergePatch, `{`, nil, 400, "error decoding patch"},
		"no object":         {"a", mergePatch, `[]`, nil, 400, "error decoding patch"},
		"no list":           {"a", jsonPatch, `{}`, nil, 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"},
		"no list of ops":    {"a", jsonPatch, `["x"]`, nil, 400, "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp"},
		"no op":             {"a", jsonPatch, `[{"op":1}]`, nil, 400, "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"},
		"no list, ignored":  {"a", jsonPatch, `{}`, &metav1.PatchOptions{FieldValidation: "Ignore"}, 400, "json: cannot unmarshal object into Go value of type jsonpatch.Patch"},
		"no path":           {"a", jsonPatch, `[{"op":"remove","path":"/data/z"}]`, nil, 422, "the server rejected our request due to an error in our request"},
		"test fails":        {"a", jsonPatch, `[{"op":"test","path":"/data/k","value":"w"}]`, nil, 422, "the server rejected our request due to an error in our request"},
		"wrong type":        {"a", mergePatch, `{"data":{"k":1}}`, nil, 422, "cannot unmarshal number into Go struct field ConfigMap.data of type string"},
		"wrong type 2":      {"a", strategicPatch, `{"data":"x"}`, nil, 422, "patch: Invalid value"},
		"no json 2":         {"a", strategicPatch, `{`, nil, 400, "unexpected end of JSON input"},
		"stale":             {"a", mergePatch, `{"metadata":{"resourceVersion":"99"}}`, nil, 409, "the object has been modified"},
		"name":              {"a", mergePatch, `{"metadata":{"name":"b"}}`, nil, 400, "the name of the object (b) does not match the name on the URL (a)"},
		"uid":               {"a", mergePatch, `{"metadata":{"uid":"b"}}`, nil, 422, "field is immutable"},
		"unknown":           {"a", mergePatch, `{"dat":{}}`, strict, 422, `unknown field "dat"`},
		"unknown strategic": {"a", strategicPatch, `{"dat":{}}`, strict, 422, `unknown field "dat"`},
		"no patch type":     {"a", "application/json", `{}`, nil, 415, "application/strategic-merge-patch+json, application/apply-patch+yaml"},
		"apply":             {"a", types.ApplyYAMLPatchType, `{}`, nil, 422, "fieldManager: Required value: is required for apply patch"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Patch(ctx, registrytest.Target(t, kube.ConfigMap, "default", test.url), test.kind, []byte(test.patch), test.opts)
			registrytest.WantError(t, err, test.code, test.text)
		})
	}
}

func TestPatchWarnsOfUnknownFields(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, configMap("a"))
	at := registrytest.Target(t, kube.ConfigMap, "default", "a")
	for validation, warnings := range map[string]int{"": 1, "Warn": 1, "Ignore": 0} {
		for _, kind := range []types.PatchType{mergePatch, strategicPatch} {
			res, err := r.Patch(ctx, at, kind, []byte(`{"dat":{}}`), &metav1.PatchOptions{FieldValidation: validation})
			if err != nil || len(res.Warnings) != warnings {
				t.Errorf("%s %q: %v, warnings %q", kind, validation, err, res.Warnings)
			}
		}
	}
}

// Patches of one object at the same time all take effect, though each is made from what it finds.
func TestPatchesRace(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, configMap("a"))
	const patchers, each = 16, 10
	var wg sync.WaitGroup
	for p := range patchers {
		wg.Go(func() {
			for i := range each {
				patch := fmt.Sprintf(`{"data":{"p%d":"%d"},"metadata":{"labels":{"p%d-%d":""}}}`, p, i, p, i)
				kind := []types.PatchType{mergePatch, strategicPatch}[i%2]
				if _, err := r.Patch(ctx, registrytest.Target(t, kube.ConfigMap, "default", "a"), kind, []byte(patch), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	res, err := r.Get(ctx, registrytest.Target(t, kube.ConfigMap, "default", "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cm := registrytest.Decode[corev1.ConfigMap](t, res.JSON)
	if len(cm.Labels) != patchers*each || len(cm.Data) != patchers {
		t.Fatalf("%d labels and %d values are left of %d patches", len(cm.Labels), len(cm.Data), patchers*each)
	}
	for k, v := range cm.Data {
		if v != fmt.Sprint(each-1) {
			t.Errorf("%s is %s: an older patch came last", k, v)
		}
	}
}

// Two kilobytes of copies would make gigabytes of a document.
func TestPatchCannotMultiply(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, configMap("a"))
	patch := `[{"op":"add","path":"/x","value":["` + strings.Repeat("x", 1000) + `"]}` +
		strings.Repeat(`,{"op":"copy","from":"/x","path":"/x/-"}`, 14) + `]`
	_, err := r.Patch(ctx, registrytest.Target(t, kube.ConfigMap, "default", "a"), jsonPatch, []byte(patch), nil)
	registrytest.WantError(t, err, 422, "the server rejected our request due to an error in our request")
}

// Each patch may have 3 MiB, and so may the object that they make together, but no more: nobody could send it back.
func TestPatchesCannotGrowAnObjectWithoutEnd(t *testing.T) {
	r := registrytest.New(t)
	d := deployment("web")
	d.Finalizers = []string{"example.com/one"}
	registrytest.Create(t, r, d)
	at := registrytest.Target(t, kube.Deployment, "default", "web")
	grow := func(name string) error {
		_, err := r.Patch(ctx, at, strategicPatch, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"`+name+`","image":"i","args":["`+strings.Repeat("x", 2<<20)+`"]}]}}}}`), nil)
		return err
	}
	if err := grow("a"); err != nil {
		t.Fatal(err)
	}
	registrytest.WantError(t, grow("b"), 413, "Request entity too large: the object would have 41")
	if _, err := r.Delete(ctx, at, nil); err != nil {
		t.Errorf("a large object must be deletable: %v", err)
	}
}
