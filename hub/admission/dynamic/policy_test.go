package dynamic_test

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
)

// resources are ConfigMaps, by all operations.
func resources() *admissionregistrationv1.MatchResources {
	return &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: rule("", "v1", "configmaps")[0]}}}
}

// policy configures a ValidatingAdmissionPolicy for ConfigMaps, and its binding.
func (h *house) policy(name, expression string, change func(*admissionregistrationv1.ValidatingAdmissionPolicySpec, *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec)) {
	h.t.Helper()
	p := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{MatchConstraints: resources(), Validations: []admissionregistrationv1.Validation{{Expression: expression}}}}
	b := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name + "-b"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{"Deny"}}}
	if change != nil {
		change(&p.Spec, &b.Spec)
	}
	h.create(p)
	h.create(b)
}

// TestValidatingPolicies checks what an expression may use, and the texts of refusals.
func TestValidatingPolicies(t *testing.T) {
	deny, allow, ignore := admissionregistrationv1.DenyAction, admissionregistrationv1.AllowAction, admissionregistrationv1.Ignore
	forbidden := metav1.StatusReasonForbidden
	configMaps := &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"}
	for name, test := range map[string]struct {
		expression string
		change     func(*admissionregistrationv1.ValidatingAdmissionPolicySpec, *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec)
		code       int32 // 0: admitted
		text       string
		warning    string
		note       string
	}{
		"true":  {expression: `object.data.k == "v"`},
		"false": {expression: `object.data.k != "v"`, code: 422, text: `configmaps "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: failed expression: object.data.k != "v"`},
		"message": {expression: "false", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, _ *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.Validations[0].Message, p.Validations[0].Reason = "because", &forbidden
		}, code: 403, text: "denied request: because"},
		"message expression": {expression: "false", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, _ *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.Validations[0].MessageExpression = `"no " + object.data.k + " in " + namespaceObject.metadata.labels.team`
		}, code: 422, text: "denied request: no v in a"},
		"variables": {expression: `variables.n == 2`, change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, _ *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.Variables = []admissionregistrationv1.Variable{{Name: "one", Expression: "1"}, {Name: "n", Expression: "variables.one + 1"}}
		}},
		"request": {expression: `request.userInfo.username == "anna" && request.operation == "CREATE" && request.namespace == "ns"`},
		"rights":  {expression: `authorizer.group("").resource("pods").namespace("ns").check("get").allowed()`, code: 422, text: "failed expression"},
		"error":   {expression: `object.spec.x == 1`, code: 422, text: "expression 'object.spec.x == 1' resulted in error: no such key: spec"},
		"error that is ignored": {expression: `object.spec.x == 1`, change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, _ *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.FailurePolicy = &ignore
		}},
		"condition": {expression: "false", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, _ *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "c", Expression: `request.userInfo.username != "anna"`}}
		}},
		"binding elsewhere": {expression: "false", change: func(_ *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			b.MatchResources = &admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}}
		}},
		"binding here": {expression: "false", change: func(_ *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			b.MatchResources = &admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}}
		}, code: 422, text: "failed expression"},
		"excluded by name": {expression: "false", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, _ *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.MatchConstraints.ExcludeResourceRules = []admissionregistrationv1.NamedRuleWithOperations{{ResourceNames: []string{"x"}, RuleWithOperations: rule("", "v1", "configmaps")[0]}}
		}},
		"warn and audit": {expression: "false", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			b.ValidationActions = []admissionregistrationv1.ValidationAction{"Warn", "Audit"}
			p.AuditAnnotations = []admissionregistrationv1.AuditAnnotation{{Key: "who", ValueExpression: "request.userInfo.username"}}
		}, warning: "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': failed expression: false", note: "anna"},
		"params": {expression: `object.data.k == params.data.want`, change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.ParamKind, b.ParamRef = configMaps, &admissionregistrationv1.ParamRef{Name: "params", ParameterNotFoundAction: &deny}
		}},
		"params by label": {expression: `object.data.k == params.data.want`, change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.ParamKind = configMaps
			b.ParamRef = &admissionregistrationv1.ParamRef{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"param": "yes"}}, ParameterNotFoundAction: &deny}
		}, code: 422, text: "failed expression"},
		"no params": {expression: "true", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.ParamKind, b.ParamRef = configMaps, &admissionregistrationv1.ParamRef{Name: "none", ParameterNotFoundAction: &deny}
		}, code: 422, text: "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"},
		"no params are fine": {expression: "false", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.ParamKind, b.ParamRef = configMaps, &admissionregistrationv1.ParamRef{Name: "none", ParameterNotFoundAction: &allow}
		}},
		"unknown kind of params": {expression: "true", change: func(p *admissionregistrationv1.ValidatingAdmissionPolicySpec, b *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) {
			p.ParamKind = &admissionregistrationv1.ParamKind{APIVersion: "example.com/v1", Kind: "Limit"}
			b.ParamRef = &admissionregistrationv1.ParamRef{Name: "none", ParameterNotFoundAction: &allow}
		}, code: 422, text: "failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'"},
		"too expensive": {expression: `[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a+b+c+d+e+f > 0))))))`,
			code: 422, text: "cost"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			for name, want := range map[string]string{"params": "v", "params2": "w"} {
				h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"param": "yes"}}, Data: map[string]string{"want": want}})
			}
			h.policy("p", test.expression, test.change)
			ctx, warned := h.as("anna")
			_, err := h.put(ctx, "x", nil)
			if test.code != 0 {
				registrytest.WantError(t, err, test.code, test.text)
			} else if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(warned.all, "\n"); got != test.warning {
				t.Errorf("warnings %q, want %q", got, test.warning)
			}
			if got := h.note("p/who"); got != test.note {
				t.Errorf("annotation %q, want %q", got, test.note)
			}
			if test.note != "" && !strings.Contains(h.note("validation.policy.admission.k8s.io/validation_failure"), `"policy":"p"`) {
				t.Errorf("notes %v", h.notes)
			}
		})
	}
}

// TestPoliciesComeAndGo checks that a policy is effective for the request after its binding, and not after it has gone.
func TestPoliciesComeAndGo(t *testing.T) {
	h := newHouse(t)
	ctx, _ := h.as("anna")
	for range 3 {
		h.policy("p", "object == null", nil)
		_, err := h.put(ctx, "x-", nil)
		registrytest.WantError(t, err, 422, "ValidatingAdmissionPolicy 'p'")
		if err := h.Client().Delete(ctx, kube.ValidatingAdmissionPolicyBinding, "", "p-b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		cm, err := h.put(ctx, "x-", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Client().Delete(ctx, kube.ValidatingAdmissionPolicy, "", "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Delete(ctx, registrytest.Target(t, kube.ConfigMap, "ns", cm.Name), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// mutator configures a MutatingAdmissionPolicy for ConfigMaps, and its binding.
func (h *house) mutator(name string, again admissionregistrationv1.ReinvocationPolicyType, mutations ...admissionregistrationv1.Mutation) {
	h.t.Helper()
	h.create(&admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{MatchConstraints: resources(), Mutations: mutations, ReinvocationPolicy: again,
			Variables: []admissionregistrationv1.Variable{{Name: "n", Expression: `string(size(object.data))`}}}})
	h.create(&admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name + "-b"},
		Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name}})
}

func apply(expression string) admissionregistrationv1.Mutation {
	return admissionregistrationv1.Mutation{PatchType: "ApplyConfiguration", ApplyConfiguration: &admissionregistrationv1.ApplyConfiguration{Expression: expression}}
}

func jsonPatch(expression string) admissionregistrationv1.Mutation {
	return admissionregistrationv1.Mutation{PatchType: "JSONPatch", JSONPatch: &admissionregistrationv1.JSONPatch{Expression: expression}}
}

// TestMutatingPolicies follows one object through policies and a webhook: the policy that asked for it runs again.
func TestMutatingPolicies(t *testing.T) {
	h := newHouse(t)
	h.mutator("a", admissionregistrationv1.IfNeededReinvocationPolicy, apply(`Object{data: Object.data{n: variables.n}}`))
	h.mutator("b", admissionregistrationv1.NeverReinvocationPolicy,
		jsonPatch(`[JSONPatch{op: "add", path: "/data/b", value: request.userInfo.username}]`),
		jsonPatch(`[JSONPatch{op: "test", path: "/data/b", value: "not so"}, JSONPatch{op: "remove", path: "/data/b"}]`))
	h.mutating("hook", patches(`[{"op":"add","path":"/data/hook","value":"h"}]`), func(w *admissionregistrationv1.MutatingWebhook) {
		w.Rules[0].Operations = []admissionregistrationv1.OperationType{"CREATE"}
	})
	ctx, _ := h.as("anna")
	cm, err := h.put(ctx, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if cm.Data["b"] != "anna" || cm.Data["hook"] != "h" || cm.Data["n"] != "4" || cm.Data["k"] != "v" || len(h.calls("/hook")) != 1 {
		t.Errorf("made %v", cm.Data)
	}
	if _, err := h.Delete(ctx, registrytest.Target(t, kube.ConfigMap, "ns", "x"), nil); err != nil {
		t.Error(err)
	}
}

// TestApplyConfigurations checks that a patch merges lists by their keys, as server-side apply does.
func TestApplyConfigurations(t *testing.T) {
	h := newHouse(t)
	pods := resources()
	pods.ResourceRules[0].Resources = []string{"pods"}
	pods.ResourceRules[0].Operations = []admissionregistrationv1.OperationType{"CREATE"}
	h.create(&admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{MatchConstraints: pods, ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
			Mutations: []admissionregistrationv1.Mutation{apply(`Object{spec: Object.spec{
				containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, env: [Object.spec.containers.env{name: "FLEET", value: "north"}]}),
				initContainers: [Object.spec.initContainers{name: "mesh", image: "mesh:1", restartPolicy: "Always"}]}}`)}}})
	h.create(&admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: "p"}})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "first", Image: "f:1"}},
		Containers:     []corev1.Container{{Name: "a", Image: "a:1", Env: []corev1.EnvVar{{Name: "X", Value: "y"}}}, {Name: "b", Image: "b:1"}}}}
	h.create(pod)
	res, err := h.Get(t.Context(), registrytest.Target(t, kube.Pod, "ns", "web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := registrytest.Decode[corev1.Pod](t, res.JSON)
	c, init := got.Spec.Containers, got.Spec.InitContainers
	if len(c) != 2 || c[0].Image != "a:1" || len(c[0].Env) != 2 || len(c[1].Env) != 1 || c[1].Env[0].Value != "north" ||
		len(init) != 2 || init[1].Image != "mesh:1" || init[1].ImagePullPolicy != "IfNotPresent" || len(init[1].VolumeMounts) != 1 {
		t.Errorf("made %s", res.JSON)
	}
}

// TestMutatingPoliciesFail checks what becomes of a write whose policy cannot be applied.
func TestMutatingPoliciesFail(t *testing.T) {
	for name, test := range map[string]struct {
		mutation admissionregistrationv1.Mutation
		code     int32
		text     string
	}{
		"error":      {apply(`Object{data: Object.data{n: object.spec.x}}`), 403, "policy 'p' with binding 'p-b' denied request: expression"},
		"not there":  {jsonPatch(`[JSONPatch{op: "remove", path: "/data/none"}]`), 403, "denied request: JSON Patch: "},
		"namespace":  {apply(`Object{metadata: Object.metadata{namespace: "kube-system"}}`), 400, "the namespace of the provided object does not match the namespace sent on the request"},
		"wrong type": {jsonPatch(`[JSONPatch{op: "replace", path: "/data", value: 7}]`), 500, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.mutator("p", admissionregistrationv1.NeverReinvocationPolicy, test.mutation)
			ctx, _ := h.as("anna")
			_, err := h.put(ctx, "x", nil)
			registrytest.WantError(t, err, test.code, test.text)
		})
	}
}
