package registry_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

var ctx = context.Background()

func configMap(name string, data ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		cm.Data[data[i]] = data[i+1]
	}
	return cm
}

func TestCreate(t *testing.T) {
	r := registrytest.New(t)
	into := registrytest.Target(t, kube.ConfigMap, "default", "")
	body := configMap("a", "k", "v")
	body.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	body.SelfLink = "/x" //lint:ignore SA1019 what an old client may send
	body.UID = "mine"
	res, err := r.Create(ctx, into, body, nil)
	if err != nil {
		t.Fatal(err)
	}
	cm := registrytest.Decode[corev1.ConfigMap](t, res.JSON)
	switch {
	case !res.Created:
		t.Error("it does not say that it created")
	case cm.Kind != "ConfigMap" || cm.APIVersion != "v1" || cm.ResourceVersion != "1":
		t.Errorf("not as stored: %s", res.JSON)
	//lint:ignore SA1019 what an old client may send
	case cm.UID == "" || cm.UID == "mine" || cm.CreationTimestamp.IsZero() || cm.SelfLink != "" || cm.ManagedFields != nil:
		t.Errorf("system metadata: %s", res.JSON)
	}
	got, err := r.Get(ctx, registrytest.Target(t, kube.ConfigMap, "default", "a"), nil)
	if err != nil || string(got.JSON) != string(res.JSON) {
		t.Errorf("get %s, %v; created %s", got.JSON, err, res.JSON)
	}
}

// TestInertKindsWarn checks that the answer to a creation says when nothing acts on the object.
func TestInertKindsWarn(t *testing.T) {
	r := registrytest.New(t)
	policies := networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy")
	res, err := r.Create(ctx, registrytest.Target(t, policies, "default", ""), &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, nil)
	if err != nil || len(res.Warnings) != 1 || res.Warnings[0] != "Petrel stores NetworkPolicy; no traffic is filtered by it yet" {
		t.Errorf("%v, warnings %q", err, res.Warnings)
	}
	res, err = r.Create(ctx, registrytest.Target(t, kube.ConfigMap, "default", ""), configMap("a"), nil)
	if err != nil || len(res.Warnings) != 0 {
		t.Errorf("%v, warnings %q", err, res.Warnings)
	}
}

func TestCreateRefuses(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, configMap("taken"))
	leaving := configMap("leaving")
	leaving.Finalizers = []string{"example.com/wait"}
	registrytest.Create(t, r, leaving)
	if err := r.Client().Delete(ctx, kube.ConfigMap, "default", "leaving", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	versioned, elsewhere := configMap("v"), configMap("e")
	versioned.ResourceVersion, elsewhere.Namespace = "1", "other"
	for name, test := range map[string]struct {
		body runtime.Object
		opts metav1.CreateOptions
		code int32
		text string
	}{
		"taken":     {configMap("taken"), metav1.CreateOptions{}, 409, `configmaps "taken" already exists`},
		"leaving":   {configMap("leaving"), metav1.CreateOptions{}, 409, `object is being deleted: configmaps "leaving" already exists`},
		"version":   {versioned, metav1.CreateOptions{}, 500, "resourceVersion should not be set on objects to be created"},
		"namespace": {elsewhere, metav1.CreateOptions{}, 400, "the namespace of the provided object does not match the namespace sent on the request"},
		"no name":   {configMap(""), metav1.CreateOptions{}, 422, "name or generateName is required"},
		"bad name":  {configMap("No_Good"), metav1.CreateOptions{}, 422, "a lowercase RFC 1123 subdomain"},
		"bad key":   {configMap("x", "a/b", ""), metav1.CreateOptions{}, 422, "a valid config key must consist of"},
		"dry run":   {configMap("x"), metav1.CreateOptions{DryRun: []string{"Some"}}, 422, "dryRun"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Create(ctx, registrytest.Target(t, kube.ConfigMap, "default", ""), test.body, &test.opts)
			registrytest.WantError(t, err, test.code, test.text)
		})
	}
}

func TestGenerateName(t *testing.T) {
	r := registrytest.New(t)
	long := strings.Repeat("x", 100)
	for _, base := range []string{"web-", long} {
		cm := configMap("")
		cm.GenerateName = base
		a, b := registrytest.Create(t, r, cm), registrytest.Create(t, r, cm)
		if a.Name == b.Name || len(a.Name) != min(len(base), 58)+5 || !strings.HasPrefix(a.Name, base[:min(len(base), 58)]) {
			t.Errorf("from %q came %q and %q", base, a.Name, b.Name)
		}
	}
}

func TestDryRunStoresNothing(t *testing.T) {
	r := registrytest.New(t)
	all := []string{"All"}
	at := registrytest.Target(t, kube.ConfigMap, "default", "a")
	res, err := r.Create(ctx, at, configMap("b"), &metav1.CreateOptions{DryRun: all})
	if err != nil || registrytest.Decode[corev1.ConfigMap](t, res.JSON).UID == "" || strings.Contains(string(res.JSON), "resourceVersion") {
		t.Fatalf("create: %v", err)
	}
	registrytest.Create(t, r, configMap("a", "k", "1"))
	if res, err = r.Update(ctx, at, configMap("a", "k", "2"), &metav1.UpdateOptions{DryRun: all}); err != nil || !strings.Contains(string(res.JSON), `"k":"2"`) {
		t.Fatalf("update: %v", err)
	}
	if res, err = r.Patch(ctx, at, types.MergePatchType, []byte(`{"data":{"k":"3"}}`), &metav1.PatchOptions{DryRun: all}); err != nil || !strings.Contains(string(res.JSON), `"k":"3"`) {
		t.Fatalf("patch: %v", err)
	}
	if _, err = r.Delete(ctx, at, &metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Fatalf("delete: %v", err)
	}
	list, err := r.List(ctx, registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || len(list.Items) != 1 || list.ResourceVersion != "1" || !strings.Contains(string(list.Items[0]), `"k":"1"`) {
		t.Fatalf("something was stored: %v %s at %s", err, list.Items, list.ResourceVersion)
	}
}

func TestUpdate(t *testing.T) {
	r := registrytest.New(t)
	at := registrytest.Target(t, kube.ConfigMap, "default", "a")
	first := registrytest.Create(t, r, configMap("a", "k", "1"))

	same := first.DeepCopy()
	res, err := r.Update(ctx, at, same, nil)
	if err != nil || registrytest.Decode[corev1.ConfigMap](t, res.JSON).ResourceVersion != first.ResourceVersion {
		t.Fatalf("an update that changes nothing made %s, %v", res.JSON, err)
	}
	next := first.DeepCopy()
	next.Data["k"], next.CreationTimestamp, next.Generation = "2", metav1.Time{}, 7
	if res, err = r.Update(ctx, at, next, nil); err != nil {
		t.Fatal(err)
	}
	second := registrytest.Decode[corev1.ConfigMap](t, res.JSON)
	if second.Data["k"] != "2" || !second.CreationTimestamp.Equal(&first.CreationTimestamp) || second.Generation != 0 || second.ResourceVersion != "2" {
		t.Fatalf("updated to %s", res.JSON)
	}
	if res, err = r.Update(ctx, at, configMap("a", "k", "3"), nil); err != nil || registrytest.Decode[corev1.ConfigMap](t, res.JSON).UID != first.UID {
		t.Fatalf("unconditional update: %v", err)
	}
}

func TestUpdateRefuses(t *testing.T) {
	r := registrytest.New(t)
	first := registrytest.Create(t, r, configMap("a"))
	if _, err := r.Client().Update(ctx, configMap("a", "k", "2"), ""); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*corev1.ConfigMap)) *corev1.ConfigMap {
		cm := configMap("a", "k", "3")
		f(cm)
		return cm
	}
	for name, test := range map[string]struct {
		url  string
		body runtime.Object
		code int32
		text string
	}{
		"stale":     {"a", first, 409, `Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`},
		"uid":       {"a", change(func(c *corev1.ConfigMap) { c.UID = "other" }), 409, "Precondition failed: UID in precondition: other, UID in object meta: " + string(first.UID)},
		"name":      {"a", change(func(c *corev1.ConfigMap) { c.Name = "b" }), 400, "the name of the object (b) does not match the name on the URL (a)"},
		"no name":   {"a", change(func(c *corev1.ConfigMap) { c.Name = "" }), 400, "name must be provided"},
		"namespace": {"a", change(func(c *corev1.ConfigMap) { c.Namespace = "b" }), 400, "the namespace of the object (b) does not match the namespace on the request (default)"},
		"missing":   {"z", configMap("z"), 404, `configmaps "z" not found`},
		"invalid":   {"a", configMap("a", "a/b", ""), 422, "a valid config key must consist of"},
		"labels":    {"a", change(func(c *corev1.ConfigMap) { c.Labels = map[string]string{"a b": ""} }), 422, "metadata.labels"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Update(ctx, registrytest.Target(t, kube.ConfigMap, "default", test.url), test.body, nil)
			registrytest.WantError(t, err, test.code, test.text)
		})
	}
}

// A PUT creates where the kind allows it.
func TestUpdateCreates(t *testing.T) {
	r := registrytest.New(t)
	ev := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"},
		InvolvedObject: corev1.ObjectReference{Namespace: "default", Kind: "Pod", Name: "p"}}
	res, err := r.Update(ctx, registrytest.Target(t, kube.Event, "default", "e"), ev, nil)
	if err != nil || !res.Created {
		t.Fatalf("%v %+v", err, res)
	}
}

func TestStatusAndScale(t *testing.T) {
	r := registrytest.New(t)
	d := registrytest.Create(t, r, deployment("web"))
	at := registrytest.Target(t, kube.Deployment, "default", "web")

	d.Spec.Paused, d.Status.Replicas = true, 2
	status := at
	status.Subresource = "status"
	res, err := r.Update(ctx, status, d.DeepCopy(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := registrytest.Decode[struct {
		Spec   struct{ Paused bool }
		Status struct{ Replicas int }
	}](t, res.JSON)
	if got.Spec.Paused || got.Status.Replicas != 2 {
		t.Fatalf("a status update made %s", res.JSON)
	}
	scale := at
	scale.Subresource = "scale"
	if res, err = r.Get(ctx, scale, nil); err != nil || !strings.Contains(string(res.JSON), `"kind":"Scale"`) || !strings.Contains(string(res.JSON), `"replicas":1`) {
		t.Fatalf("scale is %s, %v", res.JSON, err)
	}
	if res, err = r.Patch(ctx, scale, types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), nil); err != nil || !strings.Contains(string(res.JSON), `"spec":{"replicas":5}`) {
		t.Fatalf("patched scale: %v", err)
	}
	whole, err := r.Get(ctx, at, nil)
	if err != nil || !strings.Contains(string(whole.JSON), `"replicas":5`) || !strings.Contains(string(whole.JSON), `"generation":2`) {
		t.Fatalf("deployment after scaling: %s", whole.JSON)
	}
	_, err = r.Patch(ctx, scale, types.MergePatchType, []byte(`{"spec":{"replicas":-1}}`), nil)
	registrytest.WantError(t, err, 422, "must be greater than or equal to 0")
	_, err = r.Patch(ctx, scale, types.MergePatchType, []byte(`{"metadata":{"resourceVersion":"1"},"spec":{"replicas":1}}`), nil)
	registrytest.WantError(t, err, 409, "the object has been modified")
	at.Subresource = "nonsense"
	_, err = r.Get(ctx, at, nil)
	registrytest.WantError(t, err, 404, "")
}

func TestGetRefuses(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, configMap("a"))
	at := registrytest.Target(t, kube.ConfigMap, "default", "a")
	for _, rv := range []string{"", "0", "1"} {
		if _, err := r.Get(ctx, at, &metav1.GetOptions{ResourceVersion: rv}); err != nil {
			t.Errorf("get at %q: %v", rv, err)
		}
	}
	_, err := r.Get(ctx, at, &metav1.GetOptions{ResourceVersion: "9"})
	registrytest.WantError(t, err, 504, "Too large resource version: 9, current: 1")
	at.Name = "b"
	_, err = r.Get(ctx, at, nil)
	registrytest.WantError(t, err, 404, `configmaps "b" not found`)
}

// An Event is one object under two API versions.
func TestEventsHaveTwoFaces(t *testing.T) {
	r := registrytest.New(t)
	view := registrytest.Target(t, eventsV1, "default", "e")
	now := metav1.NewMicroTime(time.Now())
	body := newEvent("e", now)
	res, err := r.Create(ctx, view, body, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(res.JSON), `"apiVersion":"events.k8s.io/v1"`) || !strings.Contains(string(res.JSON), `"regarding"`) {
		t.Errorf("created %s", res.JSON)
	}
	core, err := r.Get(ctx, registrytest.Target(t, kube.Event, "default", "e"), nil)
	if err != nil || !strings.Contains(string(core.JSON), `"involvedObject"`) || !strings.Contains(string(core.JSON), `"apiVersion":"v1"`) {
		t.Errorf("core's is %s, %v", core.JSON, err)
	}
	view.Name = ""
	for _, selector := range []string{"", "regarding.name=p", "metadata.name=e"} {
		list, err := r.List(ctx, view, &metav1.ListOptions{FieldSelector: selector})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("list by %q: %v %+v", selector, err, list)
		}
		items, err := list.Show(ctx, 0, 1)
		if err != nil || !strings.Contains(string(items[0]), `"regarding"`) {
			t.Errorf("list by %q: %s, %v", selector, items, err)
		}
	}
	w, err := r.Watch(ctx, view, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	evs, err := w.Next(ctx)
	if err != nil || !strings.Contains(string(evs[0].JSON), `"regarding"`) {
		t.Errorf("watch: %v %s", err, evs)
	}
	view.Name = "e"
	if res, err = r.Patch(ctx, view, types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), nil); err != nil || !strings.Contains(string(res.JSON), `"x":"y"`) {
		t.Errorf("patch: %v", err)
	}
}
