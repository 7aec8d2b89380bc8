package dynamic_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/memtest"
)

// full returns how many of something an attack makes: less where tests have to be quick.
func full(all, some int) int {
	if os.Getenv("PETREL_HOSTILE") != "" {
		return all
	}
	return some
}

// write is one creation of a ConfigMap that what is configured decides about, with the time of a request.
type write struct {
	t *testing.T
	d *dynamic.Admission
	a *registry.AdmissionRequest
}

// configured returns a write in a hub with these objects, which were stored without being compiled: that would take most of the time.
func configured(t *testing.T, objs ...kube.Object) *write {
	t.Helper()
	kinds := builtin.New()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	ns.SetGroupVersionKind(kube.Namespace)
	d, err := dynamic.New(dynamic.Config{Objects: controltest.New(t, append(objs, ns)...), Kinds: kinds, Client: webhook.New(nil), Types: managedfields.NewDeducedTypeConverter(),
		Authorizer: auth.Union{auth.Masters{}}, Metrics: admissionwebhook.NewMetrics(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	k, _ := kinds.Lookup(kube.ConfigMap)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x"}, Data: map[string]string{"k": "v"}}
	cm.SetGroupVersionKind(kube.ConfigMap)
	return &write{t, d, &registry.AdmissionRequest{Request: resource.Request{Target: resource.Target{Kind: k, Namespace: "ns", Name: "x"}}, As: k, Operation: registry.OpCreate, Object: cm}}
}

// decide passes the write through admission.
func (w *write) decide(within time.Duration) error {
	ctx, cancel := context.WithTimeout(auth.WithUser(w.t.Context(), auth.User{Name: "ann"}), within)
	defer cancel()
	if err := w.d.Mutate(ctx, w.a, func() error { return nil }); err != nil {
		return err
	}
	return w.d.Validate(ctx, w.a)
}

// holds returns how many MiB are held once f has run.
func holds(f func()) int64 {
	before := memtest.Live()
	f()
	return (memtest.Live() - before) >> 20
}

const oneRequest = 34 * time.Second

func manyPolicies(n int) (objs []kube.Object) {
	constraints := resources()
	constraints.NamespaceSelector, constraints.ObjectSelector = &metav1.LabelSelector{}, &metav1.LabelSelector{}
	for i := range n {
		name := fmt.Sprint("p", i)
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: constraints, Validations: []admissionregistrationv1.Validation{{Expression: fmt.Sprintf(`object.data.size() < %d`, i+100)}}}}
		b := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{"Deny"}}}
		m := &admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			MatchConstraints: constraints, ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
			Mutations: []admissionregistrationv1.Mutation{jsonPatch(`[JSONPatch{op: "add", path: "/data/k", value: "v"}]`)}}}
		mb := &admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name}}
		p.SetGroupVersionKind(kube.ValidatingAdmissionPolicy)
		b.SetGroupVersionKind(kube.ValidatingAdmissionPolicyBinding)
		m.SetGroupVersionKind(kube.MutatingAdmissionPolicy)
		mb.SetGroupVersionKind(kube.MutatingAdmissionPolicyBinding)
		objs = append(objs, p, b, m, mb)
	}
	return objs
}

// timedOut reports whether a write was refused because its time was over.
func timedOut(err error) bool {
	return apierrors.IsTimeout(err) && strings.Contains(err.Error(), "take too long")
}

// TestManyPolicies checks that thousands of policies about one write cost bounded memory, however many are compiled, and no more than the
// time of the request, after which the refusal says why.
func TestManyPolicies(t *testing.T) {
	n := full(5000, 150) // of each type
	w := configured(t, manyPolicies(n)...)
	var err error
	began := time.Now()
	if held := holds(func() { err = w.decide(oneRequest) }); held > 64 {
		t.Errorf("%d MiB are held", held)
	}
	if err != nil && !timedOut(err) || err != nil && n < 1000 {
		t.Errorf("%v", err)
	}
	t.Logf("%d policies: %v, %v", 2*n, time.Since(began), err)
	if err := w.decide(0); !timedOut(err) {
		t.Errorf("a request whose time is over: %v", err)
	}
}

// TestManyMatchConditions is TestManyPolicies for the conditions of webhooks: 300 of 64 conditions each took 500 MiB.
func TestManyMatchConditions(t *testing.T) {
	var hooks []admissionregistrationv1.ValidatingWebhook
	url, scope, equivalent := "https://127.0.0.1:1/", &metav1.LabelSelector{}, admissionregistrationv1.Equivalent
	for i := range full(300, 20) {
		h := admissionregistrationv1.ValidatingWebhook{Name: fmt.Sprintf("h%d.example.com", i), Rules: rule("", "v1", "configmaps"), AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: scope, ObjectSelector: scope, MatchPolicy: &equivalent, ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}}
		for j := range 64 {
			h.MatchConditions = append(h.MatchConditions, admissionregistrationv1.MatchCondition{Name: fmt.Sprint("c", j), Expression: fmt.Sprintf("object.data.size() < %d && %d != 63", j+100, j)})
		}
		hooks = append(hooks, h)
	}
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Webhooks: hooks}
	c.SetGroupVersionKind(kube.ValidatingWebhookConfiguration)
	w := configured(t, c)
	var err error
	if held := holds(func() { err = w.decide(oneRequest) }); held > 64 {
		t.Errorf("%d MiB are held", held)
	}
	if err != nil && !timedOut(err) || err != nil && len(hooks) < 100 {
		t.Errorf("%v", err)
	}
	if err := w.decide(0); !timedOut(err) {
		t.Errorf("a request whose time is over: %v", err)
	}
}

// TestManyParams checks that a policy with ten thousand objects of params is evaluated with each, in the time of a request, that a refusal by
// all of them has a bounded size, and that more than can be evaluated is refused before.
func TestManyParams(t *testing.T) {
	n := full(10_000, 1000)
	var objs []kube.Object
	for i := range n {
		p := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("param", i), Labels: map[string]string{"param": "yes"}}, Data: map[string]string{"most": fmt.Sprint(i)}}
		p.SetGroupVersionKind(kube.ConfigMap)
		objs = append(objs, p)
	}
	policies := func(expression string, bindings int) []kube.Object {
		all := manyPolicies(1)
		p, b := all[0].(*admissionregistrationv1.ValidatingAdmissionPolicy), all[1].(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)
		p.Spec.ParamKind = &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"}
		p.Spec.Validations[0].Expression = expression
		deny := admissionregistrationv1.DenyAction
		b.Spec.ParamRef = &admissionregistrationv1.ParamRef{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"param": "yes"}}, ParameterNotFoundAction: &deny}
		out := []kube.Object{p}
		for i := range bindings {
			one := b.DeepCopy()
			one.Name = fmt.Sprint("b", i)
			out = append(out, one)
		}
		return out
	}
	if err := configured(t, append(policies("int(params.data.most) >= 0", 1), objs...)...).decide(oneRequest); err != nil {
		t.Errorf("all allow it: %v", err)
	}
	err := configured(t, append(policies(fmt.Sprintf("int(params.data.most) < %d", n-1), 1), objs...)...).decide(oneRequest)
	registrytest.WantError(t, err, 422, "denied request")
	err = configured(t, append(policies(`int(params.data.most) < 0`, 1), objs...)...).decide(oneRequest)
	registrytest.WantError(t, err, 422, "denied request")
	if len(err.Error()) > 1000 {
		t.Errorf("the refusal has %d bytes", len(err.Error()))
	}
	err = configured(t, append(policies("true", 50_000/n+1), objs...)...).decide(oneRequest)
	registrytest.WantError(t, err, 403, "admission policies would be evaluated more than 50000 times")
}

// TestMutationsThatShare checks that a mutation whose parts are shared so often that nothing could hold it, or whose patch would take
// minutes, fails before it is written out, as the failure policy says.
func TestMutationsThatShare(t *testing.T) {
	objects := `[Object.data{b: "x"}]` + strings.Repeat(`.map(o, Object.data{p: o, q: o})`, 40) + `[0]`
	big := `"` + strings.Repeat("x", 10_000) + `"`
	for name, c := range map[string]struct {
		mutation admissionregistrationv1.Mutation
		text     string
	}{
		"objects in a configuration": {apply(`Object{data: ` + objects + `}`), "the mutation would take more than 16777216 bytes of memory"},
		"objects in a patch":         {jsonPatch(`[JSONPatch{op: "add", path: "/data/b", value: ` + objects + `}]`), "the mutation would take more than 16777216 bytes of memory"},
		"many patches of one value":  {jsonPatch(`[` + big + `].map(v, lists.range(9000).map(i, JSONPatch{op: "add", path: "/data/k", value: v}))[0]`), "the mutation would take more than 16777216 bytes of memory"},
		"very many patches":          {jsonPatch(`[lists.range(9000).map(i, JSONPatch{op: "add", path: "/data/k", value: "v"})].map(l, l + l)[0]`), "the allowed maximum operations in a JSON patch is 10000, got 18000"},
		"many insertions":            {jsonPatch(`[JSONPatch{op: "add", path: "/metadata/finalizers", value: [lists.range(9000).map(i, "a")].map(l, l + l + l)[0]}] + lists.range(9000).map(i, JSONPatch{op: "add", path: "/metadata/finalizers/0", value: "b"})`), "moves of list entries"},
		"copies of copies":           {jsonPatch(`lists.range(60).map(i, JSONPatch{op: "copy", from: "/data", path: "/data/x" + string(i)})`), "the accumulated size increase of copy"},
		"what is costly to validate": {jsonPatch(`[JSONPatch{op: "add", path: "/metadata/ownerReferences", value: lists.range(40000).map(i, {"": ""})}]`), "bytes of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.mutator("p", admissionregistrationv1.NeverReinvocationPolicy, c.mutation)
			ctx, _ := h.as("anna")
			var err error
			n := memtest.Allocated(func() { _, err = h.put(ctx, "x", nil) })
			registrytest.WantError(t, err, 403, c.text)
			if n > 256 {
				t.Errorf("%d MiB were allocated", n)
			}
		})
	}
}

// TestFightingMutations checks that mutations which undo each other, and each ask to run again, end; and that none makes the object another
// one, or one that its kind does not allow.
func TestFightingMutations(t *testing.T) {
	h := newHouse(t)
	ctx, _ := h.as("anna")
	always := admissionregistrationv1.IfNeededReinvocationPolicy
	for _, name := range []string{"a", "b", "c"} {
		h.mutator(name, always, jsonPatch(`[JSONPatch{op: "replace", path: "/data/k", value: "`+name+`"}, JSONPatch{op: "add", path: "/data/log", value: (has(object.data.log) ? object.data.log : "") + "`+name+`"}]`))
	}
	cm, err := h.put(ctx, "x", nil)
	if err != nil || cm.Data["log"] != "abcabc" || cm.Data["k"] != "c" {
		t.Errorf("%v, %v", cm, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := h.Client().Delete(ctx, kube.MutatingAdmissionPolicyBinding, "", name+"-b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(path, value string) admissionregistrationv1.Mutation {
		return jsonPatch(`[JSONPatch{op: "add", path: "` + path + `", value: ` + value + `}]`)
	}
	for name, c := range map[string]struct {
		mutation       admissionregistrationv1.Mutation
		create, update string // what the refusal says; "": it goes through, and the field is as it was
	}{
		"name":       {replace("/metadata/name", `"other"`), "", "metadata.name"},
		"namespace":  {replace("/metadata/namespace", `"kube-system"`), "the namespace of the provided object does not match", "metadata.namespace"},
		"uid":        {replace("/metadata/uid", `"mine"`), "", "metadata.uid"},
		"kind":       {jsonPatch(`[JSONPatch{op: "replace", path: "/data/k", value: "aGk="}, JSONPatch{op: "replace", path: "/kind", value: "Secret"}]`), "apiVersion and kind cannot be changed", "apiVersion and kind cannot be changed"},
		"deletion":   {replace("/metadata/deletionTimestamp", `"2030-01-01T00:00:00Z"`), "", ""},
		"created":    {replace("/metadata/creationTimestamp", `"2001-01-01T00:00:00Z"`), "", ""},
		"data":       {replace("/data", `[1]`), "cannot unmarshal", "cannot unmarshal"},
		"key":        {replace("/data/a~1b", `"v"`), "a valid config key must consist of", "a valid config key must consist of"},
		"whole":      {replace("", `{}`), "doc is missing path", "doc is missing path"},
		"finalizers": {replace("/metadata/finalizers", `["a b"]`), "metadata.finalizers", "metadata.finalizers"},
	} {
		t.Run(name, func(t *testing.T) {
			had, err := h.put(ctx, "had-"+name, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.mutator(name, admissionregistrationv1.NeverReinvocationPolicy, c.mutation)
			made, err := h.put(ctx, "new-"+name, nil)
			check(t, "create", err, c.create)
			if err == nil && (made.Namespace != "ns" || made.UID == "mine" || made.UID == "" || made.DeletionTimestamp != nil || made.CreationTimestamp.Year() < 2002) {
				t.Errorf("made %+v", made)
			}
			got, err := h.merge(ctx, had.Name, `{"data":{"k":"w"}}`)
			check(t, "update", err, c.update)
			if err == nil && (got.Name != had.Name || got.UID != had.UID || got.DeletionTimestamp != nil || !got.CreationTimestamp.Equal(&had.CreationTimestamp)) {
				t.Errorf("updated to %+v", got)
			}
			if err := h.Client().Delete(ctx, kube.MutatingAdmissionPolicyBinding, "", name+"-b", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// check checks what the refusal of a write says; "" for none.
func check(t *testing.T, what string, err error, says string) {
	t.Helper()
	if (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want %q", what, err, says)
	}
}
