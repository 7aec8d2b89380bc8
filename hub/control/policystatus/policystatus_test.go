package policystatus

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/kube"
)

// TestWarnings checks what is found in expressions about Deployments, and that a kind without a schema is left out.
func TestWarnings(t *testing.T) {
	kinds, types := builtin.New(), &openapi.Types{}
	c := New(Config{Schema: types.Schema, Kind: func(gvr schema.GroupVersionResource) (kube.GVK, bool) {
		if gvr.Resource == "widgets" {
			return kube.GVK{Group: gvr.Group, Version: gvr.Version, Kind: "Widget"}, true
		}
		for _, k := range kinds.All() {
			if k.GVR() == gvr {
				return k.GVK, true
			}
		}
		return kube.GVK{}, false
	}})
	for _, test := range []struct {
		expression string
		group      string
		resource   string
		warning    string
	}{
		{`object.spec.replicas < 5 && object.metadata.labels["a"] == "b"`, "apps", "deployments", ""},
		{`object.spec.template.spec.containers.all(c, c.image.startsWith("x/"))`, "apps", "deployments", ""},
		{`object.spec.replicas > "5"`, "apps", "deployments", "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"},
		{`object.spec.replica > 5`, "apps", "deployments", "undefined field 'replica'"},
		{`object.spec.anything > 5`, "example.com", "widgets", ""},
		{`object.spec.anything > 5`, "example.com", "none", ""},
	} {
		t.Run(test.expression, func(t *testing.T) {
			rule := admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Rule: admissionregistrationv1.Rule{APIGroups: []string{test.group}, APIVersions: []string{"v1"}, Resources: []string{test.resource}}}}
			found := c.checker.Check(&admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"},
				Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
					MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{rule}},
					Validations:      []admissionregistrationv1.Validation{{Expression: test.expression}}}})
			switch {
			case test.warning == "" && len(found) > 0:
				t.Errorf("found %v", found)
			case test.warning != "" && (len(found) != 1 || !strings.Contains(found[0].Warning, test.warning) || found[0].FieldRef != "spec.validations[0].expression"):
				t.Errorf("found %v, want %q", found, test.warning)
			}
		})
	}
}
