package reviews_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/registry/reviews"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// tokens knows one token, of Jane's, which is for the API and for a vault.
type tokens struct{}

func (tokens) Token(_ context.Context, token string, audiences []string) (auth.User, []string, error) {
	if token != "good" {
		return auth.User{}, nil, errors.New("the token is not a JWT")
	}
	if len(audiences) == 0 {
		return jane, []string{"api"}, nil
	}
	for _, a := range audiences {
		if a == "vault" {
			return jane, []string{"vault"}, nil
		}
	}
	return auth.User{}, nil, errors.New(`the token is for audiences ["api" "vault"]`)
}

var jane = auth.User{Name: "jane", UID: "u1", Groups: []string{"ops", "system:authenticated"}, Extra: map[string][]string{"k": {"v"}}}

// policy lets jane get pods in shop and read /metrics, and cannot decide about secrets.
type policy struct{}

func (policy) Authorize(_ context.Context, u auth.User, a auth.Attributes) (bool, string, error) {
	switch {
	case a.Plural == "secrets":
		return true, "", errors.New("the policy cannot be read")
	case u.Name != "jane" || len(u.Groups) == 0 || u.Groups[0] != "ops":
		return false, "not jane of ops", nil
	case a.Resource:
		return a == auth.Attributes{Resource: true, Verb: "get", APIVersion: "*", Plural: "pods", Namespace: "shop", Name: "till"}, "", nil
	}
	return a == auth.Attributes{Verb: "get", Path: "/metrics"}, "", nil
}

func (policy) RulesFor(_ context.Context, u auth.User, namespace string) authorizationv1.SubjectRulesReviewStatus {
	return authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    []authorizationv1.ResourceRule{{Verbs: []string{"get"}, Resources: []string{u.Name + "s of " + namespace}}},
		NonResourceRules: []authorizationv1.NonResourceRule{},
	}
}

// TestReviews shows for each kind what is asked and what is answered, or refused, in upstream's words. Each is asked again as a
// dry run, which changes nothing: an answer is all there is.
func TestReviews(t *testing.T) {
	const (
		self   = `{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"shop","name":"till"}}`
		asJane = `{"user":"jane","groups":["ops"],"resourceAttributes":{"verb":"get","resource":"pods","namespace":"shop","name":"till"}}`
		user   = `{"extra":{"k":["v"]},"groups":["ops","system:authenticated"],"uid":"u1","username":"jane"}`
	)
	kinds := registrytest.Kinds()
	if err := reviews.Install(kinds, tokens{}, policy{}); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	for _, test := range []struct {
		name      string
		kind      kube.GVK
		namespace string
		body      string // spec, or the whole object where it begins with metadata
		status    string // of the answer
		code      int    // of the refusal; 0: none
		text      string
	}{
		{name: "a good token", kind: kube.TokenReview, body: `{"token":"good"}`, status: `{"audiences":["api"],"authenticated":true,"user":` + user + `}`},
		{name: "a token for others too", kind: kube.TokenReview, body: `{"token":"good","audiences":["vault","bank"]}`,
			status: `{"audiences":["vault"],"authenticated":true,"user":` + user + `}`},
		{name: "a token for others only", kind: kube.TokenReview, body: `{"token":"good","audiences":["bank"]}`,
			status: `{"error":"[invalid bearer token, the token is for audiences [\"api\" \"vault\"]]","user":{}}`},
		{name: "nonsense as a token", kind: kube.TokenReview, body: `{"token":"x"}`, status: `{"error":"[invalid bearer token, the token is not a JWT]","user":{}}`},
		{name: "no token", kind: kube.TokenReview, body: `{}`, code: 400, text: "token is required for TokenReview in authentication"},

		{name: "who am I", kind: kube.SelfSubjectReview, body: `null`, status: `{"userInfo":` + user + `}`},

		{name: "may I", kind: kube.SelfSubjectAccessReview, body: self, status: `{"allowed":true}`},
		{name: "may I see", kind: kube.SelfSubjectAccessReview, body: `{"nonResourceAttributes":{"verb":"get","path":"/metrics"}}`, status: `{"allowed":true}`},
		{name: "may I see all", kind: kube.SelfSubjectAccessReview, body: `{"nonResourceAttributes":{"verb":"get","path":"/"}}`, status: `{"allowed":false}`},
		{name: "may I, if it can be read", kind: kube.SelfSubjectAccessReview, body: `{"resourceAttributes":{"verb":"get","resource":"secrets",
			"fieldSelector":{"requirements":[{"key":"a","operator":"In","values":["b"]},{"key":"a","operator":"Exists"}]},"labelSelector":{"rawSelector":"a in ("}}}`,
			status: `{"allowed":false,"evaluationError":"the policy cannot be read; spec.resourceAttributes.fieldSelector partially ignored due to parse error; ` +
				`spec.resourceAttributes.labelSelector ignored due to parse error"}`},
		{name: "may I, selected", kind: kube.SelfSubjectAccessReview, body: `{"resourceAttributes":{"verb":"list","resource":"pods",
			"fieldSelector":{"rawSelector":"a=b"},"labelSelector":{"requirements":[{"key":"a","operator":"Exists"}]}}}`, status: `{"allowed":false}`},
		{name: "may I nothing", kind: kube.SelfSubjectAccessReview, body: `{}`, code: 422,
			text: `SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`},

		{name: "may jane", kind: kube.SubjectAccessReview, body: asJane, status: `{"allowed":true}`},
		{name: "may john", kind: kube.SubjectAccessReview, body: strings.Replace(asJane, "jane", "john", 1), status: `{"allowed":false,"reason":"not jane of ops"}`},
		{name: "may jane without her groups", kind: kube.SubjectAccessReview, body: strings.Replace(asJane, `"ops"`, "", 1), status: `{"allowed":false,"reason":"not jane of ops"}`},
		{name: "may nobody", kind: kube.SubjectAccessReview, body: `{"resourceAttributes":{}}`, code: 422,
			text: `SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified`},

		{name: "may jane here", kind: kube.LocalSubjectAccessReview, namespace: "shop", body: asJane, status: `{"allowed":true}`},
		{name: "may jane elsewhere", kind: kube.LocalSubjectAccessReview, namespace: "bank", body: asJane, code: 422,
			text: `LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "shop": must match metadata.namespace`},
		{name: "may jane see", kind: kube.LocalSubjectAccessReview, namespace: "shop", body: `{"user":"jane","nonResourceAttributes":{"path":"/"}}`, code: 422,
			text: `LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: {"Path":"/","Verb":""}: disallowed on this kind of request`},
		{name: "may jane nowhere", kind: kube.LocalSubjectAccessReview, body: `{"user":"jane","resourceAttributes":{}}`, code: 400, text: "namespace is required on this type: "},

		{name: "what may I", kind: kube.SelfSubjectRulesReview, body: `{"namespace":"shop"}`,
			status: `{"incomplete":false,"nonResourceRules":[],"resourceRules":[{"resources":["janes of shop"],"verbs":["get"]}]}`},
		{name: "what may I, nowhere", kind: kube.SelfSubjectRulesReview, body: `{}`, code: 400, text: "no namespace on request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := registrytest.TargetOf(t, kinds, test.kind, test.namespace, "")
			for _, opts := range []*metav1.CreateOptions{nil, {DryRun: []string{metav1.DryRunAll}}} {
				obj, _, err := at.Kind.DecodeStrict([]byte(`{"spec":` + test.body + `,"status":{}}`))
				if err != nil {
					t.Fatal(err)
				}
				res, err := r.Create(auth.WithUser(t.Context(), jane), at, obj, opts)
				if test.code != 0 {
					var status apierrors.APIStatus
					if !errors.As(err, &status) || int(status.Status().Code) != test.code || err.Error() != test.text {
						t.Errorf("answered %v, want %d %s", err, test.code, test.text)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				var answer struct {
					APIVersion, Kind string
					Status           any
				}
				if err := json.Unmarshal(res.JSON, &answer); err != nil {
					t.Fatal(err)
				}
				status, err := json.Marshal(answer.Status) // in the order of its keys
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.status, string(status)); diff != "" || !res.Created || answer.Kind != test.kind.Kind || answer.APIVersion != test.kind.GroupVersion().String() {
					t.Errorf("%s%s", diff, res.JSON)
				}
			}
		})
	}
	list, err := r.List(t.Context(), registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || list.ResourceVersion != "0" {
		t.Errorf("the log is at %s, %v: something was stored", list.ResourceVersion, err)
	}
}

// Nothing may answer reviews in the place of a policy that is missing.
func TestMissingPolicyIsAStartError(t *testing.T) {
	if err := reviews.Install(builtin.New(), tokens{}, nil); err == nil {
		t.Error("installed without a policy")
	}
	if err := reviews.Install(builtin.New(), nil, policy{}); err == nil {
		t.Error("installed without tokens")
	}
}
