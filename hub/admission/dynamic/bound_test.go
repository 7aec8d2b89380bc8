package dynamic_test

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"petrel.dev/petrel/internal/memtest"
)

// TestGrowingExpressions checks that an expression, wherever it may stand, cannot make more than memory holds: the write is refused,
// naming the function and the bound, or goes on where nothing depends on the result.
func TestGrowingExpressions(t *testing.T) {
	thousand := func(c string) string { return `"` + strings.Repeat(c, 1000) + `"` }
	bomb := thousand("a") + `.replace("a", ` + thousand("b") + `).replace("b", ` + thousand("a") + `).replace("a", ` + thousand("c") + `)`
	condition := []admissionregistrationv1.MatchCondition{{Name: "c", Expression: bomb + ` == ""`}}
	type policySpec = admissionregistrationv1.ValidatingAdmissionPolicySpec
	type bindingSpec = admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec
	const text = "replace: the result would have more than 3145728 bytes"
	for name, test := range map[string]struct {
		configure func(h *house)
		text      string // of the refusal
	}{
		"validation": {func(h *house) { h.policy("p", bomb+` == ""`, nil) }, text},
		"variable": {func(h *house) {
			h.policy("p", `variables.v == ""`, func(p *policySpec, _ *bindingSpec) {
				p.Variables = []admissionregistrationv1.Variable{{Name: "v", Expression: bomb}}
			})
		}, text},
		"condition of a policy": {func(h *house) {
			h.policy("p", "true", func(p *policySpec, _ *bindingSpec) { p.MatchConditions = condition })
		}, text},
		"message": {func(h *house) {
			h.policy("p", "false", func(p *policySpec, _ *bindingSpec) { p.Validations[0].MessageExpression = bomb })
		}, "failed expression: false"},
		"audit annotation": {func(h *house) {
			h.policy("p", "true", func(p *policySpec, _ *bindingSpec) {
				p.AuditAnnotations = []admissionregistrationv1.AuditAnnotation{{Key: "k", ValueExpression: bomb}}
			})
		}, text},
		"configuration to apply": {func(h *house) {
			h.mutator("p", admissionregistrationv1.NeverReinvocationPolicy, apply(`Object{data: Object.data{n: `+bomb+`}}`))
		}, text},
		"patch": {func(h *house) {
			h.mutator("p", admissionregistrationv1.NeverReinvocationPolicy, jsonPatch(`[JSONPatch{op: "add", path: "/data/b", value: `+bomb+`}]`))
		}, text},
		"shared lists in a patch": {func(h *house) {
			h.mutator("p", admissionregistrationv1.NeverReinvocationPolicy, jsonPatch(`[JSONPatch{op: "add", path: "/data/b", value: [[1]]`+strings.Repeat(".map(x, [x, x])", 40)+`}]`))
		}, "a field of an object would have more than 100000 items"},
		"shared lists in a configuration": {func(h *house) {
			h.mutator("p", admissionregistrationv1.NeverReinvocationPolicy, apply(`Object{data: Object.data{n: [[1]]`+strings.Repeat(".map(x, [x, x])", 40)+`}}`))
		}, "a field of an object would have more than 100000 items"},
		"condition of a webhook": {func(h *house) {
			h.validating("v", allows, func(w *admissionregistrationv1.ValidatingWebhook) { w.MatchConditions = condition })
		}, text},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			test.configure(h)
			ctx, _ := h.as("anna")
			var err error
			n := memtest.Allocated(func() { _, err = h.put(ctx, "x", nil) })
			if err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, want %q", err, test.text)
			}
			if n > 128 {
				t.Errorf("%d MiB were allocated", n)
			}
		})
	}
}
