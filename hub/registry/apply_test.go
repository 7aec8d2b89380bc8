package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// applier sends applies of one manager about one object.
type applier struct {
	t    *testing.T
	r    *registry.Registry
	kind kube.GVK
	name string
	sub  []string
}

func (a applier) try(manager, body string, change ...func(*metav1.PatchOptions)) (*registry.Result, error) {
	o := &metav1.PatchOptions{FieldManager: manager}
	for _, c := range change {
		c(o)
	}
	return a.r.Patch(ctx, registrytest.Target(a.t, a.kind, "default", a.name, a.sub...), types.ApplyPatchType, []byte(body), o)
}

func (a applier) apply(manager, body string, change ...func(*metav1.PatchOptions)) *registry.Result {
	a.t.Helper()
	res, err := a.try(manager, body, change...)
	if err != nil {
		a.t.Fatalf("%s applies %s: %v", manager, body, err)
	}
	return res
}

func (a applier) refused(manager, body string, change ...func(*metav1.PatchOptions)) metav1.Status {
	a.t.Helper()
	_, err := a.try(manager, body, change...)
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		a.t.Fatalf("%s applies %s: %v, want a Status", manager, body, err)
	}
	return status.Status()
}

// now returns the object as it is stored.
func (a applier) now() []byte {
	a.t.Helper()
	res, err := a.r.Get(ctx, registrytest.Target(a.t, a.kind, "default", a.name), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return res.JSON
}

func force(o *metav1.PatchOptions) { yes := true; o.Force = &yes }

// managers writes managedFields as one line for each entry.
func managers(t *testing.T, object []byte) string {
	t.Helper()
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(object, &o); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range o.ManagedFields {
		if e.Time.IsZero() {
			t.Errorf("%s has no time", e.Manager)
		}
		sub := ""
		if e.Subresource != "" {
			sub = "/" + e.Subresource
		}
		fmt.Fprintf(&b, "%s %s %s%s %s\n", e.Manager, e.Operation, e.APIVersion, sub, e.FieldsV1.GetRawString())
	}
	return b.String()
}

func wantManagers(t *testing.T, object []byte, lines ...string) {
	t.Helper()
	want := strings.Join(lines, "\n") + "\n"
	if len(lines) == 0 {
		want = ""
	}
	if got := managers(t, object); got != want {
		t.Errorf("managers are\n%swant\n%s", got, want)
	}
}

const webData = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web"},"data":`

func TestApplyCreatesAndRemoves(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
	res := a.apply("one", webData+`{"a":"1","b":"2"}}`)
	if !res.Created {
		t.Error("the first apply did not create")
	}
	wantManagers(t, res.JSON, `one Apply v1 {"f:data":{"f:a":{},"f:b":{}}}`)

	res = a.apply("two", webData+`{"c":"3"}}`)
	wantManagers(t, res.JSON, `one Apply v1 {"f:data":{"f:a":{},"f:b":{}}}`, `two Apply v1 {"f:data":{"f:c":{}}}`)

	res = a.apply("one", webData+`{"a":"1"}}`) // b is no longer wanted
	cm := registrytest.Decode[corev1.ConfigMap](t, res.JSON)
	if len(cm.Data) != 2 || cm.Data["a"] != "1" || cm.Data["c"] != "3" {
		t.Errorf("data is %v", cm.Data)
	}
	again := a.apply("one", webData+`{"a":"1"}}`)
	if string(again.JSON) != string(res.JSON) {
		t.Errorf("an apply that changes nothing made\n%s\nof\n%s", again.JSON, res.JSON)
	}
	dry := a.apply("one", webData+`{"a":"9"}}`, func(o *metav1.PatchOptions) { o.DryRun = []string{"All"} })
	if !strings.Contains(string(dry.JSON), `"a":"9"`) {
		t.Errorf("the dry run shows %s", dry.JSON)
	}
	if now := a.now(); !strings.Contains(string(now), `"a":"1"`) {
		t.Errorf("a dry run made %s", now)
	}
}

func TestApplyConflicts(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
	a.apply("one", webData+`{"a":"1","b":"2"}}`)
	s := a.refused("two", webData+`{"a":"9"}}`)
	if s.Code != 409 || s.Reason != metav1.StatusReasonConflict || s.Message != `Apply failed with 1 conflict: conflict with "one": .data.a` {
		t.Errorf("%d %s %q", s.Code, s.Reason, s.Message)
	}
	if len(s.Details.Causes) != 1 || s.Details.Causes[0] != (metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "one"`, Field: ".data.a"}) {
		t.Errorf("causes are %+v", s.Details.Causes)
	}
	s = a.refused("two", webData+`{"a":"9","b":"9"}}`)
	if want := "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b"; s.Message != want || len(s.Details.Causes) != 2 {
		t.Errorf("%q %+v", s.Message, s.Details.Causes)
	}
	a.apply("two", webData+`{"a":"1"}}`) // the same value is shared
	res := a.apply("two", webData+`{"a":"9"}}`, force)
	wantManagers(t, res.JSON, `one Apply v1 {"f:data":{"f:b":{}}}`, `two Apply v1 {"f:data":{"f:a":{}}}`)

	// A field that an update changed belongs to who updated.
	cm := registrytest.Decode[corev1.ConfigMap](t, res.JSON)
	cm.Data["b"] = "5"
	up, err := a.r.Update(ctx, registrytest.Target(t, kube.ConfigMap, "default", "web"), cm, &metav1.UpdateOptions{FieldManager: "editor"})
	if err != nil {
		t.Fatal(err)
	}
	wantManagers(t, up.JSON, `two Apply v1 {"f:data":{"f:a":{}}}`, `editor Update v1 {"f:data":{"f:b":{}}}`)
	s = a.refused("one", webData+`{"b":"2"}}`)
	if s.Message != `Apply failed with 1 conflict: conflict with "editor" using v1: .data.b` {
		t.Errorf("%q", s.Message)
	}
}

// Nothing is recorded of an object that nobody applied to. The first apply finds what there was.
func TestTrackingBegins(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Data: map[string]string{"a": "1"}}
	cm.SetGroupVersionKind(kube.ConfigMap)
	res, err := a.r.Create(ctx, registrytest.Target(t, kube.ConfigMap, "default", ""), cm, &metav1.CreateOptions{FieldManager: "maker"})
	if err != nil {
		t.Fatal(err)
	}
	wantManagers(t, res.JSON)
	s := a.refused("one", webData+`{"a":"9"}}`)
	if s.Message != `Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a` {
		t.Errorf("%q", s.Message)
	}
	res = a.apply("one", webData+`{"b":"2"}}`)
	wantManagers(t, res.JSON, `one Apply v1 {"f:data":{"f:b":{}}}`, `before-first-apply Update v1 {"f:data":{".":{},"f:a":{}}}`)

	patched, err := a.r.Patch(ctx, registrytest.Target(t, kube.ConfigMap, "default", "web"), mergePatch, []byte(`{"data":{"c":"3"}}`), &metav1.PatchOptions{FieldManager: "patcher"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(managers(t, patched.JSON), `patcher Update v1 {"f:data":{"f:c":{}}}`) {
		t.Errorf("a patch of a tracked object recorded\n%s", managers(t, patched.JSON))
	}
}

// What kubectl's client-side apply has set is found by its annotation: kubectl takes it over when it applies on the server.
func TestTrackingBeginsAfterClientSideApply(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
	const last = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{},"name":"web","namespace":"default"},"data":{"a":"1","b":"2"}}`
	cm := &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "changed since", "c": "3"}}
	cm.Name, cm.Namespace, cm.Annotations = "web", "default", map[string]string{"kubectl.kubernetes.io/last-applied-configuration": last}
	registrytest.Create(t, a.r, cm)
	if s := a.refused("kubectl", webData+`{"a":"9","b":"9"}}`); s.Message != `Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.b` {
		t.Errorf("%q", s.Message)
	}
	if s := a.refused("other", webData+`{"a":"9"}}`); s.Message != `Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .data.a` {
		t.Errorf("%q", s.Message)
	}
	res := a.apply("kubectl", webData+`{"a":"9"}}`)
	wantManagers(t, res.JSON,
		`kubectl Apply v1 {"f:data":{"f:a":{}}}`,
		`before-first-apply Update v1 {"f:data":{".":{},"f:b":{},"f:c":{}}}`,
		`kubectl-client-side-apply Update v1 {"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}}}}`)
	if now := registrytest.Decode[corev1.ConfigMap](t, res.JSON); !strings.Contains(now.Annotations["kubectl.kubernetes.io/last-applied-configuration"], `"a":"9"`) {
		t.Errorf("the annotation is %q", now.Annotations)
	}
}

const webDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: example/c, ports: [{containerPort: 80}]}
`

func TestApplySubresources(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.Deployment, name: "web"}
	status := a
	status.sub = []string{"status"}
	if s := status.refused("controller", webDeployment); s.Code != 404 {
		t.Errorf("the status of nothing: %+v", s)
	}
	a.apply("owner", webDeployment+"status: {replicas: 9}\n") // resets status, and nobody manages it
	res := status.apply("controller", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"x":"y"}},"spec":{"replicas":9},"status":{"replicas":2}}`)
	d := registrytest.Decode[appsv1.Deployment](t, res.JSON)
	if *d.Spec.Replicas != 3 || d.Status.Replicas != 2 || len(d.Labels) != 0 {
		t.Errorf("spec %d, status %d, labels %v", *d.Spec.Replicas, d.Status.Replicas, d.Labels)
	}
	const owned = `"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}`
	wantManagers(t, res.JSON, `controller Apply apps/v1/status {"f:status":{"f:replicas":{}}}`, `owner Apply apps/v1 {"f:spec":{"f:replicas":{},`+owned)

	scale := a
	scale.sub = []string{"scale"}
	const five = `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"web"},"spec":{"replicas":5}}`
	if s := scale.refused("scaler", five); s.Message != `Apply failed with 1 conflict: conflict with "owner": .spec.replicas` {
		t.Errorf("%q", s.Message)
	}
	res = scale.apply("scaler", five, force)
	if got := registrytest.Decode[autoscalingv1.Scale](t, res.JSON); got.Spec.Replicas != 5 || got.ManagedFields != nil {
		t.Errorf("scaled to %+v", got)
	}
	wantManagers(t, a.now(), `scaler Apply apps/v1/scale {"f:spec":{"f:replicas":{}}}`,
		`controller Apply apps/v1/status {"f:status":{"f:replicas":{}}}`, `owner Apply apps/v1 {"f:spec":{`+owned)
	if s := a.refused("owner", webDeployment); s.Message != `Apply failed with 1 conflict: conflict with "scaler" with subresource "scale": .spec.replicas` {
		t.Errorf("%q", s.Message)
	}
	// A PUT of the Scale takes the replicas too.
	put := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: autoscalingv1.ScaleSpec{Replicas: 6}}
	put.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	if _, err := a.r.Update(ctx, registrytest.Target(t, kube.Deployment, "default", "web", "scale"), put, &metav1.UpdateOptions{FieldManager: "hand"}); err != nil {
		t.Fatal(err)
	}
	wantManagers(t, a.now(), `controller Apply apps/v1/status {"f:status":{"f:replicas":{}}}`, `owner Apply apps/v1 {"f:spec":{`+owned,
		`hand Update apps/v1/scale {"f:spec":{"f:replicas":{}}}`)
}

// TestApplyResize checks that who resizes a pod by apply manages its resources, and nothing else of it.
func TestApplyResize(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.Pod, name: "web"}
	a.apply("owner", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m"}}}]}}`)
	a.sub = []string{"resize"}
	const larger = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"x":"y"}},"spec":{"containers":[{"name":"c","image":"other","resources":{"requests":{"cpu":"200m"}}}]}}`
	if s := a.refused("sizer", larger); s.Message != `Apply failed with 1 conflict: conflict with "owner": .spec.containers[name="c"].resources.requests.cpu` {
		t.Errorf("%q", s.Message)
	}
	res := a.apply("sizer", larger, force)
	pod := registrytest.Decode[corev1.Pod](t, res.JSON)
	if c := pod.Spec.Containers[0]; c.Resources.Requests.Cpu().String() != "200m" || c.Image != "i" || len(pod.Labels) > 0 || pod.Generation != 2 {
		t.Errorf("resized to %+v, labels %v, generation %d", c, pod.Labels, pod.Generation)
	}
	wantManagers(t, res.JSON, `owner Apply v1 {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}}}`,
		`sizer Apply v1/resize {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:resources":{"f:requests":{"f:cpu":{}}}}}}}`)
}

func TestApplyRefuses(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
	a.apply("one", webData+`{"a":"1"}}`)
	strict := func(o *metav1.PatchOptions) { o.FieldValidation = "Strict" }
	for name, test := range map[string]struct {
		body string
		with func(*metav1.PatchOptions)
		code int32
		text string
	}{
		"no manager":          {webData + `{}}`, func(o *metav1.PatchOptions) { o.FieldManager = "" }, 422, `PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`},
		"no object":           {``, nil, 400, "invalid object type: /, Kind="},
		"null":                {`null`, nil, 400, "invalid object type: /, Kind="},
		"a list":              {`[]`, nil, 400, "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array"},
		"no YAML":             {"a: [", nil, 400, "error decoding YAML: error converting YAML to JSON: yaml: line 1: did not find expected node content"},
		"another kind":        {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"web"}}`, nil, 400, "invalid object type: /v1, Kind=Secret"},
		"another version":     {`{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"web"}}`, nil, 400, "invalid object type: /v2, Kind=ConfigMap"},
		"another name":        {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`, nil, 400, "the name of the object (x) does not match the name on the URL (web)"},
		"another namespace":   {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"x"}}`, nil, 400, "the namespace of the object (x) does not match the namespace on the request (default)"},
		"managed fields":      {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","managedFields":[]}}`, nil, 400, "metadata.managedFields must be nil"},
		"an unknown field":    {webData + `{},"dada":{}}`, nil, 500, "failed to create typed patch object (/web; /v1, Kind=ConfigMap): .dada: field not declared in schema"},
		"a field of no type":  {webData + `5}`, nil, 500, "failed to create typed patch object (/web; /v1, Kind=ConfigMap): .data: expected map, got &{5}"},
		"a field twice":       {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata:\n  a: x\n  a: z\n", strict, 409, "conflict"},
		"a label twice":       {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web\n  labels:\n    a: x\n    a: z\n", strict, 400, "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map"},
		"a label twice, JSON": {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","labels":{"a":"x","a":"y"}}}`, strict, 400, "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 1: key \"a\" already set in map"},
		"an old version":      {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","resourceVersion":"99"}}`, nil, 409, `Operation cannot be fulfilled on configmaps "web": the object has been modified; please apply your changes to the latest version and try again`},
		"another uid":         {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","uid":"u"}}`, nil, 422, "metadata.uid: Invalid value: \"u\": field is immutable"},
		"nested too deep":     {webData + strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300) + "}", nil, 400, "fields are nested more than 200 deep"},
		"aliases that grow":   {"a: &a " + strings.Repeat("x", 100_000) + "\nb:\n" + strings.Repeat("- *a\n", 1000), nil, 400, "document contains excessive aliasing"},
		"too many fields":     {webData + manyFields(50_000) + "}", nil, 413, "the managers of an object's fields are recorded for 20000 fields at most"},
		"a large body, YAML":  {"data:\n" + strings.Repeat("  a: b\n", 100_000), nil, 400, "a body in YAML may have 524288 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a := a
			a.t = t
			s := a.refused("one-or-other", test.body, func(o *metav1.PatchOptions) {
				if test.with != nil {
					test.with(o)
				}
			})
			if s.Code != test.code || !strings.Contains(s.Message, test.text) {
				t.Errorf("%d %q, want %d %q", s.Code, s.Message, test.code, test.text)
			}
		})
	}
	missing := a
	missing.name = "new"
	if s := missing.refused("one", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"new","uid":"u"}}`); s.Code != 409 || !strings.Contains(s.Message, "uid mismatch: the provided object specified uid u, and no existing object was found") {
		t.Errorf("%d %q", s.Code, s.Message)
	}
	if s := missing.refused("one", `{"apiVersion":"v1","kind":"ConfigMap","data":{}}`); s.Code != 400 || !strings.Contains(s.Message, "undeterminable") {
		t.Errorf("%d %q", s.Code, s.Message)
	}
	warned := a.apply("one", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata:\n  a: '1'\n  a: '2'\n")
	if len(warned.Warnings) != 1 || !strings.Contains(warned.Warnings[0], `line 6: key "a" already set in map`) {
		t.Errorf("warnings %q", warned.Warnings)
	}
	ownerless := func(ctx context.Context) error {
		return apierrors.NewForbidden(corev1.Resource("configmaps"), "new", errors.New("may not create"))
	}
	_, err := a.r.Patch(registry.WithCreateCheck(ctx, ownerless), registrytest.Target(t, kube.ConfigMap, "default", "new"), types.ApplyPatchType,
		[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"new"}}`), &metav1.PatchOptions{FieldManager: "one"})
	registrytest.WantError(t, err, 403, "may not create")
}

// manyFields writes a map with n fields.
func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":""`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// What a client writes into managedFields is either understood or of no effect; it never damages the object.
func TestManagedFieldsOfClients(t *testing.T) {
	entry := `{"manager":"m","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:a":{}}}}`
	for name, test := range map[string]struct {
		fields string // null: removed by the merge patch
		want   []string
	}{
		"null is none":         {`null`, []string{`one Apply v1 {"f:data":{"f:a":{}}}`}},
		"an empty list":        {`[]`, nil},
		"an empty entry":       {`[{}]`, nil},
		"an entry":             {`[` + entry + `]`, []string{`m Update v1 {"f:data":{"f:a":{}}}`}},
		"no operation":         {`[{"manager":"m","apiVersion":"v1","fieldsType":"FieldsV1"}]`, []string{`one Apply v1 {"f:data":{"f:a":{}}}`}},
		"no type":              {`[{"manager":"m","operation":"Update","apiVersion":"v1"}]`, []string{`one Apply v1 {"f:data":{"f:a":{}}}`}},
		"no such path":         {`[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"v:{":{}}}}]`, []string{`one Apply v1 {"f:data":{"f:a":{}}}`}},
		"an unknown version":   {`[` + strings.Replace(entry, `"v1"`, `"v7"`, 1) + `]`, nil},
		"no version at all":    {`[` + strings.Replace(entry, `"v1"`, `"a/b/c"`, 1) + `]`, nil},
		"a field that is none": {`[` + strings.Replace(entry, `f:data`, `f:dada`, 1) + `]`, []string{`m Update v1 {"f:dada":{"f:a":{}}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
			a.apply("one", webData+`{"a":"1"}}`)
			res, err := a.r.Patch(ctx, registrytest.Target(t, kube.ConfigMap, "default", "web"), mergePatch,
				[]byte(`{"metadata":{"managedFields":`+test.fields+`}}`), &metav1.PatchOptions{FieldManager: "patcher"})
			if err != nil {
				t.Fatal(err)
			}
			wantManagers(t, res.JSON, test.want...)
			if !strings.Contains(string(res.JSON), `"data":{"a":"1"}`) {
				t.Errorf("the object is %s", res.JSON)
			}
			a.apply("two", webData+`{"b":"1"}}`) // goes on from whatever there is
		})
	}
}

// An object has at most ten managers that update; more are put together.
func TestManagersAreCapped(t *testing.T) {
	a := applier{t: t, r: registrytest.New(t), kind: kube.ConfigMap, name: "web"}
	res := a.apply("one", webData+`{"a":"1"}}`)
	for i := range 15 {
		var err error
		res, err = a.r.Patch(ctx, registrytest.Target(t, kube.ConfigMap, "default", "web"), mergePatch,
			[]byte(fmt.Sprintf(`{"data":{"k%d":"x"}}`, i)), &metav1.PatchOptions{FieldManager: fmt.Sprint("patcher", i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := managers(t, res.JSON); strings.Count(got, " Update ") != 10 || !strings.Contains(got, "ancient-changes Update v1 ") {
		t.Errorf("managers are\n%s", got)
	}
}
