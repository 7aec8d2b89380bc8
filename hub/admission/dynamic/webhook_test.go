package dynamic_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// TestMutatingWebhooks follows one object through three webhooks: each sees what the one before made, and the one that asked for it
// runs again.
func TestMutatingWebhooks(t *testing.T) {
	h := newHouse(t)
	again := admissionregistrationv1.IfNeededReinvocationPolicy
	h.mutating("a", func(w http.ResponseWriter, r *http.Request, q *admissionv1.AdmissionRequest) {
		cm := &corev1.ConfigMap{}
		_ = json.Unmarshal(q.Object.Raw, cm)
		patches(fmt.Sprintf(`[{"op":"add","path":"/data/a","value":"%d"}]`, len(cm.Data)))(w, r, q)
	}, func(w *admissionregistrationv1.MutatingWebhook) { w.ReinvocationPolicy = &again })
	h.mutating("b", patches(`[{"op":"add","path":"/data/b","value":"b"}]`), nil)
	h.mutating("c", allows, nil)
	ctx, _ := h.as("anna")
	cm, err := h.put(ctx, "x-", &metav1.CreateOptions{FieldManager: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if cm.Data["a"] != "3" || cm.Data["b"] != "b" || len(h.calls("/a")) != 2 || len(h.calls("/b")) != 1 || len(h.calls("/c")) != 1 {
		t.Errorf("made %v with %d, %d, %d calls", cm.Data, len(h.calls("/a")), len(h.calls("/b")), len(h.calls("/c")))
	}
	q := h.calls("/c")[0]
	var seen corev1.ConfigMap
	if err := json.Unmarshal(q.Object.Raw, &seen); err != nil || seen.Data["b"] != "b" || seen.Kind != "ConfigMap" || seen.APIVersion != "v1" {
		t.Errorf("c saw %s", q.Object.Raw)
	}
	if q.UserInfo.Username != "anna" || q.Operation != "CREATE" || q.Namespace != "ns" || q.Resource.Resource != "configmaps" || q.Kind.Kind != "ConfigMap" ||
		*q.DryRun || len(q.OldObject.Raw) != 0 || !strings.Contains(string(q.Options.Raw), `"fieldManager":"me"`) {
		t.Errorf("c was asked by %v about %s %s in %s, options %s", q.UserInfo, q.Operation, q.Resource, q.Namespace, q.Options.Raw)
	}
	if got := h.note("mutation.webhook.admission.k8s.io/round_0_index_0"); !strings.Contains(got, `"mutated":`) {
		t.Errorf("audit annotation %q", got)
	}
	// A patch may hold what only those may read who may read requests.
	if got := h.note("patch.webhook.admission.k8s.io/round_0_index_0"); !strings.Contains(got, `"patchType":"JSONPatch"`) {
		t.Errorf("audit annotation %q", got)
	}
	for key, want := range map[string]auditinternal.Level{
		"patch.webhook.admission.k8s.io/round_0_index_0": auditinternal.LevelRequest, "mutation.webhook.admission.k8s.io/round_0_index_0": auditinternal.LevelMetadata,
	} {
		if got := h.levels[key]; got != want {
			t.Errorf("%s is annotated at level %s, want %s", key, got, want)
		}
	}
	// An update has both objects; no webhook is asked about one that has nothing to do with it.
	if _, err := h.merge(ctx, cm.Name, `{"data":{"k":"w"}}`); err != nil {
		t.Fatal(err)
	}
	last := h.calls("/c")[1]
	if last.Operation != "UPDATE" || !strings.Contains(string(last.OldObject.Raw), `"k":"v"`) || !strings.Contains(string(last.Object.Raw), `"k":"w"`) || last.Name != cm.Name {
		t.Errorf("c was asked %+v: %s, was %s", last, last.Object.Raw, last.OldObject.Raw)
	}
}

// TestDamagedManagers checks that managedFields which a webhook has made nonsense of are as before, and that the client learns it.
func TestDamagedManagers(t *testing.T) {
	h := newHouse(t)
	h.mutating("a", patches(`[{"op":"add","path":"/metadata/managedFields","value":[{"manager":"m","operation":"Nonsense"}]}]`), nil)
	ctx, warned := h.as("anna")
	cm, err := h.put(ctx, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range cm.ManagedFields {
		if f.Manager == "m" {
			t.Errorf("managers are %v", cm.ManagedFields)
		}
	}
	const want = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: "
	if len(warned.all) != 1 || !strings.HasPrefix(warned.all[0], want) {
		t.Errorf("warnings are %q", warned.all)
	}
}

// TestOptionsOfReviews checks that a webhook sees how a client wants unknown fields to be treated, as the client has put it.
func TestOptionsOfReviews(t *testing.T) {
	h := newHouse(t)
	h.validating("a", allows, nil)
	ctx, _ := h.as("anna")
	if _, err := h.put(ctx, "x", &metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}); err != nil {
		t.Fatal(err)
	}
	target := registrytest.Target(t, kube.ConfigMap, "ns", "x")
	if _, err := h.Patch(ctx, target, types.MergePatchType, []byte(`{"data":{"k":"w"}}`), &metav1.PatchOptions{FieldValidation: metav1.FieldValidationIgnore}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.merge(ctx, "x", `{"data":{"k":"x"}}`); err != nil {
		t.Fatal(err)
	}
	calls := h.calls("/a")
	for i, want := range []string{`"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldValidation":"Strict"`, `"kind":"UpdateOptions","apiVersion":"meta.k8s.io/v1","fieldValidation":"Ignore"`, ``} {
		got := string(calls[i].Options.Raw)
		if want == "" && strings.Contains(got, "fieldValidation") || !strings.Contains(got, want) {
			t.Errorf("call %d has options %s", i, got)
		}
	}
}

// TestValidatingWebhooks checks refusals and what else a webhook may say.
func TestValidatingWebhooks(t *testing.T) {
	h := newHouse(t)
	h.validating("good", says(admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"old"}, AuditAnnotations: map[string]string{"k": "v"}}), nil)
	ctx, warned := h.as("anna")
	if _, err := h.put(ctx, "x", nil); err != nil || len(warned.all) != 1 || warned.all[0] != "old" || h.note("good.example.com/k") != "v" {
		t.Fatalf("%v, warnings %q, notes %v", err, warned.all, h.notes)
	}
	h.validating("no", says(admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "not today", Code: 418, Reason: "Teapot"}}), nil)
	_, err := h.put(ctx, "y", nil)
	registrytest.WantError(t, err, 418, `admission webhook "no.example.com" denied the request: not today`)
	_, err = h.merge(ctx, "x", `{"data":{"k":"w"}}`)
	registrytest.WantError(t, err, 418, "denied the request")
	_, err = h.Delete(ctx, registrytest.Target(t, kube.ConfigMap, "ns", "x"), nil)
	registrytest.WantError(t, err, 418, "denied the request")
	q := h.calls("/no")[2]
	if q.Operation != "DELETE" || len(q.Object.Raw) != 0 || !strings.Contains(string(q.OldObject.Raw), `"k":"v"`) || !strings.Contains(string(q.Options.Raw), `"kind":"DeleteOptions"`) {
		t.Errorf("asked about %s %s: %s, was %s, options %s", q.Operation, q.Resource, q.Object.Raw, q.OldObject.Raw, q.Options.Raw)
	}
	_, err = h.DeleteCollection(ctx, registrytest.Target(t, kube.ConfigMap, "ns", ""), &metav1.DeleteOptions{}, &metav1.ListOptions{})
	registrytest.WantError(t, err, 418, "denied the request")

	// A webhook does not keep itself from being removed, and is gone for the very next request.
	if err := h.Client().Delete(ctx, kube.ValidatingWebhookConfiguration, "", "no", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.put(ctx, "y", nil); err != nil {
		t.Error(err)
	}
	h.validating("everything", says(admissionv1.AdmissionResponse{}), func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = rule("*", "*", "*/*") })
	_, err = h.put(ctx, "z", nil)
	registrytest.WantError(t, err, 400, `admission webhook "everything.example.com" denied the request without explanation`)
	if err := h.Client().Delete(ctx, kube.ValidatingWebhookConfiguration, "", "everything", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// TestBadWebhooks checks what becomes of a write when its webhook does anything but its work: a clear Status, in bounded time and
// memory, or as if there were no webhook where its failures are ignored.
func TestBadWebhooks(t *testing.T) {
	other := "Other"
	json6902 := admissionv1.PatchTypeJSONPatch
	long := strings.Repeat("x", 1<<20)
	for name, test := range map[string]struct {
		answer  answer
		text    string
		whether bool // the failure policy matters
	}{
		"nonsense": {func(w http.ResponseWriter, _ *http.Request, _ *admissionv1.AdmissionRequest) {
			_, _ = io.WriteString(w, "moin")
		}, `failed calling webhook "bad.example.com": failed to call webhook: couldn't get version/kind; json parse error`, true},
		"nothing": {func(http.ResponseWriter, *http.Request, *admissionv1.AdmissionRequest) {}, "0-length response", true},
		"no response": {func(w http.ResponseWriter, _ *http.Request, _ *admissionv1.AdmissionRequest) {
			_ = json.NewEncoder(w).Encode(review(nil))
		}, "received invalid webhook response: webhook response was absent", true},
		"wrong uid": {func(w http.ResponseWriter, _ *http.Request, _ *admissionv1.AdmissionRequest) {
			_ = json.NewEncoder(w).Encode(review(&admissionv1.AdmissionResponse{UID: "x"}))
		}, `expected response.uid="`, true},
		"hangs": {func(_ http.ResponseWriter, r *http.Request, _ *admissionv1.AdmissionRequest) { <-r.Context().Done() }, "context deadline exceeded", true},
		"fails": {func(w http.ResponseWriter, _ *http.Request, _ *admissionv1.AdmissionRequest) {
			http.Error(w, "sorry", 500)
		}, `an error on the server ("sorry") has prevented the request from succeeding`, true},
		"is elsewhere": {func(w http.ResponseWriter, r *http.Request, _ *admissionv1.AdmissionRequest) {
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		}, "status code 307", true},
		"does not end": {func(w http.ResponseWriter, _ *http.Request, _ *admissionv1.AdmissionRequest) {
			for {
				if _, err := io.WriteString(w, long); err != nil {
					return
				}
			}
		}, "more than 8388608 bytes", true},
		"no patch":         {says(admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(`moin`), PatchType: &json6902}), "received undecodable patch in webhook response", true},
		"no type":          {says(admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(`[]`)}), "webhook returned response.patch but not response.patchType", true},
		"other type":       {says(admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(`[{"op":"add","path":"/x","value":1}]`), PatchType: (*admissionv1.PatchType)(&other)}), `unsupported patch type "Other"`, true},
		"namespace":        {patches(`[{"op":"replace","path":"/metadata/namespace","value":"kube-system"}]`), "the namespace of the provided object does not match the namespace sent on the request", false},
		"no such path":     {patches(`[{"op":"remove","path":"/data/none"}]`), "Unable to remove nonexistent key", false},
		"wrong type":       {patches(`[{"op":"replace","path":"/data","value":7}]`), "cannot unmarshal", false},
		"whole document":   {patches(`[{"op":"replace","path":"","value":null}]`), "Internal error occurred", false},
		"breaks a rule":    {patches(`[{"op":"add","path":"/data/a~1b","value":"v"}]`), "a valid config key must consist of", false},
		"name":             {patches(`[{"op":"replace","path":"/metadata/name","value":""}]`), "name or generateName is required", false},
		"a senseless code": {says(admissionv1.AdmissionResponse{Result: &metav1.Status{Code: 99999, Message: "no"}}), `admission webhook "bad.example.com" denied the request: no`, false},
		"much to decode":   {patches(`[{"op":"add","path":"/metadata/finalizers","value":[` + strings.TrimSuffix(strings.Repeat(`"",`, 200_000), ",") + `]}]`), "bytes of memory", false},
		"many warnings":    {says(admissionv1.AdmissionResponse{Allowed: true, Warnings: make([]string, 200_000)}), "bytes of memory", true},
		"a bomb":           {patches("[" + strings.TrimSuffix(strings.Repeat(`{"op":"copy","from":"/data","path":"/data/x"},`, 5000), ",") + "]"), "Internal error occurred", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			ctx, _ := h.as("anna")
			seconds := int32(30) // what fails here fails for its own reason, however slow this machine is
			if name == "hangs" {
				seconds = 1
			}
			h.mutating("bad", test.answer, func(w *admissionregistrationv1.MutatingWebhook) { w.TimeoutSeconds = &seconds })
			_, err := h.put(ctx, "x", nil)
			if err == nil || !strings.Contains(err.Error(), test.text) {
				t.Fatalf("error %v, want %q", err, test.text)
			}
			if err := h.Client().Delete(ctx, kube.MutatingWebhookConfiguration, "", "bad", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			ignore := admissionregistrationv1.Ignore
			h.mutating("bad", test.answer, func(w *admissionregistrationv1.MutatingWebhook) {
				w.TimeoutSeconds, w.FailurePolicy = &seconds, &ignore
			})
			cm, err := h.put(ctx, "x", nil)
			switch {
			case !test.whether && err == nil:
				t.Error("a refusal is no failure of the call: it is not to be ignored")
			case test.whether && (err != nil || cm.Data["k"] != "v"):
				t.Errorf("ignored: %v", err)
			case test.whether && h.note("failed-open.mutation.webhook.admission.k8s.io/round_0_index_0") != "bad.example.com":
				t.Errorf("notes %v", h.notes)
			}
		})
	}
}

// TestOlderReviews checks a webhook that speaks v1beta1 only: it need not repeat the uid.
func TestOlderReviews(t *testing.T) {
	h := newHouse(t)
	h.mutating("old", func(w http.ResponseWriter, _ *http.Request, _ *admissionv1.AdmissionRequest) {
		r := review(&admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(`[{"op":"add","path":"/data/old","value":"yes"}]`)})
		r.APIVersion = "admission.k8s.io/v1beta1"
		_ = json.NewEncoder(w).Encode(r)
	}, func(w *admissionregistrationv1.MutatingWebhook) {
		w.AdmissionReviewVersions = []string{"v2", "v1beta1", "v1"}
	})
	ctx, _ := h.as("anna")
	if cm, err := h.put(ctx, "x", nil); err != nil || cm.Data["old"] != "yes" {
		t.Errorf("%v, %+v", err, cm)
	}
}

// TestManyWritersAndWebhooks checks that writes from many goroutines, while configurations change, are each held against
// what is configured.
func TestManyWritersAndWebhooks(t *testing.T) {
	h := newHouse(t)
	h.mutating("mark", patches(`[{"op":"add","path":"/data/mark","value":"yes"}]`), nil)
	h.validating("see", allows, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := auth.WithUser(t.Context(), auth.User{Name: "anna"})
			for n := range 5 {
				if cm, err := h.put(ctx, fmt.Sprintf("x-%d-%d", i, n), nil); err != nil || cm.Data["mark"] != "yes" {
					t.Errorf("%v, %+v", err, cm)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 5 {
			h.policy(fmt.Sprintf("p%d", i), `object.data.mark == "yes"`, nil)
		}
	})
	wg.Wait()
	if n := len(h.calls("/see")); n != 40 {
		t.Errorf("%d of 40 writes were seen", n)
	}
}

// TestImmutableIdentity checks that a webhook cannot make an update one of another object.
func TestImmutableIdentity(t *testing.T) {
	h := newHouse(t)
	ctx, _ := h.as("anna")
	if _, err := h.put(ctx, "x", nil); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"name", "namespace", "uid"} {
		h.mutating(field, patches(fmt.Sprintf(`[{"op":"replace","path":"/metadata/%s","value":"other"}]`, field)), nil)
		_, err := h.merge(ctx, "x", `{"data":{"k":"w"}}`)
		registrytest.WantError(t, err, 422, "metadata."+field)
		if err := h.Client().Delete(ctx, kube.MutatingWebhookConfiguration, "", field, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.mutating("ends", patches(`[{"op":"add","path":"/metadata/deletionTimestamp","value":"2030-01-01T00:00:00Z"}]`), nil)
	if cm, err := h.put(ctx, "y", nil); err != nil || cm.DeletionTimestamp != nil {
		t.Errorf("%v %+v", err, cm)
	}
}

// TestWebhookScope checks which writes a webhook is asked about.
func TestWebhookScope(t *testing.T) {
	cluster, namespaced, exact := admissionregistrationv1.ClusterScope, admissionregistrationv1.NamespacedScope, admissionregistrationv1.Exact
	label := func(k, v string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{k: v}}
	}
	condition := func(e string) []admissionregistrationv1.MatchCondition {
		return []admissionregistrationv1.MatchCondition{{Name: "c", Expression: e}}
	}
	ignore := admissionregistrationv1.Ignore
	for name, test := range map[string]struct {
		change func(*admissionregistrationv1.ValidatingWebhook)
		asked  bool
	}{
		"all": {func(*admissionregistrationv1.ValidatingWebhook) {}, true},
		"other operation": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.Rules[0].Operations = []admissionregistrationv1.OperationType{"DELETE"}
		}, false},
		"other resource": {func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules[0].Resources = []string{"secrets"} }, false},
		"other version":  {func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules[0].APIVersions = []string{"v2"} }, false},
		"any version": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.Rules[0].APIVersions = []string{"*"}
			w.MatchPolicy = &exact
		}, true},
		"subresources only": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.Rules[0].Resources = []string{"configmaps/status"}
		}, false},
		"cluster":           {func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules[0].Scope = &cluster }, false},
		"namespaced":        {func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules[0].Scope = &namespaced }, true},
		"its namespace":     {func(w *admissionregistrationv1.ValidatingWebhook) { w.NamespaceSelector = label("team", "a") }, true},
		"another namespace": {func(w *admissionregistrationv1.ValidatingWebhook) { w.NamespaceSelector = label("team", "b") }, false},
		"its labels":        {func(w *admissionregistrationv1.ValidatingWebhook) { w.ObjectSelector = label("app", "x") }, true},
		"other labels":      {func(w *admissionregistrationv1.ValidatingWebhook) { w.ObjectSelector = label("app", "y") }, false},
		"condition": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions = condition(`object.data.k == "v" && request.userInfo.username == "anna"`)
		}, true},
		"condition is not met": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions = condition(`object.data.k == "w"`)
		}, false},
		"condition of rights": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions = condition(`authorizer.requestResource.check("own").allowed()`)
		}, false},
		"condition that errors": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions, w.FailurePolicy = condition(`object.spec.x == 1`), &ignore
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.validating("v", allows, test.change)
			ctx, _ := h.as("anna")
			if _, err := h.put(ctx, "x", nil); err != nil {
				t.Fatal(err)
			}
			if n := len(h.calls("/v")); n > 1 || (n == 1) != test.asked {
				t.Errorf("asked %d times", n)
			}
		})
	}
	h := newHouse(t)
	h.validating("v", allows, func(w *admissionregistrationv1.ValidatingWebhook) {
		w.MatchConditions = condition(`object.spec.x == 1`)
	})
	ctx, _ := h.as("anna")
	_, err := h.put(ctx, "x", nil)
	registrytest.WantError(t, err, 403, `configmaps "x" is forbidden: expression 'object.spec.x == 1' resulted in error: no such key: spec`)
}

// TestWebhookConfigurationsAreChecked shows that an expression that does not compile is refused when it is stored.
func TestWebhookConfigurationsAreChecked(t *testing.T) {
	h := newHouse(t)
	none := admissionregistrationv1.SideEffectClassNone
	_, err := h.Client().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "x"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "x.example.com", ClientConfig: h.at("/x"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "c", Expression: "object.x +"}}}}})
	registrytest.WantError(t, err, 422, "webhooks[0].matchConditions[0].expression: Invalid value")
}

func TestDryRunAndSideEffects(t *testing.T) {
	h := newHouse(t)
	some := admissionregistrationv1.SideEffectClassNoneOnDryRun
	h.validating("v", allows, func(w *admissionregistrationv1.ValidatingWebhook) { w.SideEffects = &some })
	ctx, _ := h.as("anna")
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "own"}}) // by the hub itself, without its kind
	if q := h.calls("/v")[0]; !strings.Contains(string(q.Object.Raw), `"kind":"ConfigMap","apiVersion":"v1"`) {
		t.Errorf("asked about %s", q.Object.Raw)
	}
	if _, err := h.put(ctx, "x", &metav1.CreateOptions{DryRun: []string{"All"}}); err != nil || len(h.calls("/v")) != 2 || !*h.calls("/v")[1].DryRun {
		t.Errorf("%v, %+v", err, h.calls("/v"))
	}
}

// TestWebhookVersions checks that a webhook sees an object in the version that its rules name, whichever the client speaks.
func TestWebhookVersions(t *testing.T) {
	h := newHouse(t)
	h.mutating("core", patches(`[{"op":"replace","path":"/message","value":"changed"}]`), func(w *admissionregistrationv1.MutatingWebhook) { w.Rules = rule("", "v1", "events") })
	exact := admissionregistrationv1.Exact
	h.validating("exact", allows, func(w *admissionregistrationv1.ValidatingWebhook) {
		w.Rules, w.MatchPolicy = rule("", "v1", "events"), &exact
	})
	view := eventsv1.SchemeGroupVersion.WithKind("Event")
	e := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "e"}, EventTime: metav1.NowMicro(), ReportingController: "a.b/c", ReportingInstance: "i",
		Action: "a", Reason: "r", Type: "Normal", Note: "said", Regarding: corev1.ObjectReference{Namespace: "ns", Name: "p", Kind: "Pod"}}
	e.SetGroupVersionKind(view)
	ctx, _ := h.as("anna")
	res, err := h.Create(ctx, registrytest.Target(t, view, "ns", ""), e, nil)
	if err != nil || !strings.Contains(string(res.JSON), `"note":"changed"`) || !strings.Contains(string(res.JSON), `"apiVersion":"events.k8s.io/v1"`) {
		t.Fatalf("%v, %d calls: %s", err, len(h.calls("/core")), res.JSON)
	}
	q := h.calls("/core")[0]
	if q.Kind.Group != "" || q.RequestKind.Group != "events.k8s.io" || q.RequestResource.Group != "events.k8s.io" || !strings.Contains(string(q.Object.Raw), `"involvedObject"`) {
		t.Errorf("asked %+v about %s", q, q.Object.Raw)
	}
	if len(h.calls("/exact")) != 0 {
		t.Error("Exact matched another version")
	}
}

// TestWebhooksOfSubresources checks what webhooks see of requests about parts of objects, and that a changed body counts.
func TestWebhooksOfSubresources(t *testing.T) {
	h := newHouse(t)
	ctx, _ := h.as("anna")
	for name, resource := range map[string]string{"scale": "replicationcontrollers/scale", "binding": "pods/binding", "eviction": "pods/eviction", "exec": "pods/exec", "pod": "pods"} {
		h.validating(name, allows, func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = rule("", "v1", resource) })
	}
	h.mutating("fewer", patches(`[{"op":"replace","path":"/spec/replicas","value":2}]`), func(w *admissionregistrationv1.MutatingWebhook) {
		w.Rules = rule("", "v1", "replicationcontrollers/scale")
	})
	h.mutating("label", patches(`[{"op":"add","path":"/metadata/labels","value":{"bound":"yes"}}]`), func(w *admissionregistrationv1.MutatingWebhook) { w.Rules = rule("", "v1", "pods/binding") })
	pod := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	h.create(&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "rc"}, Spec: corev1.ReplicationControllerSpec{Selector: map[string]string{"a": "b"}, Template: &pod}})
	h.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: pod.Spec})

	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "rc"}, Spec: autoscalingv1.ScaleSpec{Replicas: 5}}
	at := registrytest.Target(t, corev1.SchemeGroupVersion.WithKind("ReplicationController"), "ns", "rc", "scale")
	res, err := h.Update(ctx, at, scale, nil)
	if err != nil || !strings.Contains(string(res.JSON), `"replicas":2`) {
		t.Fatalf("%v %+v", err, res)
	}
	q := h.calls("/scale")[0]
	if q.Kind.Kind != "Scale" || q.Kind.Group != "autoscaling" || q.SubResource != "scale" || q.Resource.Resource != "replicationcontrollers" ||
		!strings.Contains(string(q.Object.Raw), `"replicas":2`) || !strings.Contains(string(q.OldObject.Raw), `"replicas":1`) {
		t.Errorf("scale: %+v: %s, was %s", q, q.Object.Raw, q.OldObject.Raw)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if _, err := h.Create(ctx, registrytest.Target(t, kube.Pod, "ns", "p", "binding"), binding, nil); err != nil {
		t.Fatal(err)
	}
	if q := h.calls("/binding")[0]; q.Kind.Kind != "Binding" || q.Operation != "CREATE" || q.Name != "p" {
		t.Errorf("binding: %+v", q)
	}
	bound, err := h.Get(ctx, registrytest.Target(t, kube.Pod, "ns", "p"), nil)
	if err != nil || !strings.Contains(string(bound.JSON), `"bound":"yes"`) {
		t.Errorf("bound %s, %v", bound.JSON, err)
	}
	if err := h.Connect(ctx, registrytest.Target(t, kube.Pod, "ns", "p", "exec"), &corev1.PodExecOptions{Command: []string{"sh"}}); err != nil {
		t.Fatal(err)
	}
	if q := h.calls("/exec")[0]; q.Kind.Kind != "PodExecOptions" || q.Operation != "CONNECT" || !strings.Contains(string(q.Object.Raw), `"command":["sh"]`) {
		t.Errorf("exec: %+v %s", q, q.Object.Raw)
	}
	before := len(h.calls("/pod"))
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}
	if _, err := h.Create(ctx, registrytest.Target(t, kube.Pod, "ns", "p", "eviction"), eviction, nil); err != nil {
		t.Fatal(err)
	}
	if q := h.calls("/eviction")[0]; q.Kind.Kind != "Eviction" || q.Kind.Group != "policy" || q.Operation != "CREATE" || len(h.calls("/pod")) != before {
		t.Errorf("eviction: %+v, and %d calls about pods", q, len(h.calls("/pod"))-before)
	}
}
