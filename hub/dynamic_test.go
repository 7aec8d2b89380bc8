package hub

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWholeHubAdmits configures a whole hub: a webhook and a policy act on the very next requests, the policy's status says what is
// wrong with its types, and the calls are counted.
func TestWholeHubAdmits(t *testing.T) {
	config, stop := running(t, t.TempDir())
	defer stop()
	ctx, c := t.Context(), clientOf(t, config)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		kind := admissionv1.PatchTypeJSONPatch
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, PatchType: &kind, Patch: []byte(`[{"op":"add","path":"/data","value":{"by":"hook"}}]`)}
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer hook.Close()
	everything := []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"CREATE"},
		Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}}
	none, mine := admissionregistrationv1.SideEffectClassNone, &metav1.LabelSelector{MatchLabels: map[string]string{"mine": "yes"}}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	if _, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "hook"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "hook.example.com", ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &hook.URL, CABundle: ca},
			Rules: everything, ObjectSelector: mine, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ObjectSelector: mine, ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: everything[0]}}},
			Validations:      []admissionregistrationv1.Validation{{Expression: `object.data.by == "hook" && object.metadata.name != "no"`}, {Expression: `object.immutable == "x" || true`}},
		}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "p", ValidationActions: []admissionregistrationv1.ValidationAction{"Deny"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	configMaps := c.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	cm := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: mine.MatchLabels}}
	}
	if made, err := configMaps.Create(ctx, cm("yes"), metav1.CreateOptions{}); err != nil || made.Data["by"] != "hook" {
		t.Errorf("%v, %+v", err, made)
	}
	if _, err := configMaps.Create(ctx, cm("no"), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'p' with binding 'b' denied request") {
		t.Errorf("refused with %v", err)
	}
	// The status comes from a controller, a moment later.
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		p, err := c.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Status.ObservedGeneration == p.Generation {
			if w := p.Status.TypeChecking.ExpressionWarnings; len(w) != 1 || w[0].FieldRef != "spec.validations[1].expression" {
				t.Errorf("warnings %+v", w)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status %+v", p.Status)
		}
	}
	metrics, err := c.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if want := `apiserver_admission_webhook_request_total{code="200",name="hook.example.com",operation="CREATE",rejected="false",type="admit"} 2`; err != nil || !strings.Contains(string(metrics), want) {
		t.Errorf("%v: no %s in the metrics", err, want)
	}
}
