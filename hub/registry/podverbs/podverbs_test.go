package podverbs_test

import (
	"context"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/podverbs"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

var ctx = context.Background()

func newPod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "registry.example/c:1"}}},
	}
}

func TestBinding(t *testing.T) {
	r := registrytest.New(t)
	p := registrytest.Create(t, r, newPod("p", ""))
	at := registrytest.Target(t, kube.Pod, "default", "p", "binding")
	binding := func(node string) *corev1.Binding {
		return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}},
			Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	}
	_, err := r.Create(ctx, at, binding(""), nil)
	registrytest.WantError(t, err, 500, "target.name: Required value")
	wrong := binding("edge-1")
	wrong.UID = "x"
	_, err = r.Create(ctx, at, wrong, nil)
	registrytest.WantError(t, err, 409, "Precondition failed: UID in precondition: x")

	res, err := r.Create(ctx, at, binding("edge-1"), nil)
	if err != nil || !res.Created || !strings.Contains(string(res.JSON), `"Success"`) {
		t.Fatalf("%+v, %v", res, err)
	}
	got, err := r.Get(ctx, registrytest.Target(t, kube.Pod, "default", "p"), nil)
	if err != nil {
		t.Fatal(err)
	}
	bound := registrytest.Decode[corev1.Pod](t, got.JSON)
	c := bound.Status.Conditions
	if bound.Spec.NodeName != "edge-1" || bound.UID != p.UID || bound.Annotations["a"] != "b" ||
		len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Status != corev1.ConditionTrue || c[0].LastTransitionTime.IsZero() {
		t.Fatalf("bound pod: %s", got.JSON)
	}
	_, err = r.Create(ctx, at, binding("edge-2"), nil)
	registrytest.WantError(t, err, 409, `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "edge-1"`)
	if _, err = r.Delete(ctx, registrytest.Target(t, kube.Pod, "default", "p"), nil); err != nil {
		t.Fatal(err)
	}
	_, err = r.Create(ctx, at, binding("edge-2"), nil)
	registrytest.WantError(t, err, 409, "pod p is being deleted, cannot be assigned to a host")
	_, err = r.Create(ctx, registrytest.Target(t, kube.Pod, "default", "q", "binding"), &corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}, nil)
	registrytest.WantError(t, err, 404, `pods "q" not found`)
}

// TestBindings binds by a Binding that is created for itself, with the rules of the subresource.
func TestBindings(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, newPod("p", ""))
	at := registrytest.Target(t, kube.Binding, "default", "")
	binding := func(pod, node string) *corev1.Binding {
		return &corev1.Binding{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Binding"}, ObjectMeta: metav1.ObjectMeta{Name: pod, Labels: map[string]string{"a": "b"}},
			Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	}
	_, err := r.Create(ctx, at, binding("", "edge-1"), nil)
	registrytest.WantError(t, err, 400, "name is required")
	_, err = r.Create(ctx, at, binding("p", ""), nil)
	registrytest.WantError(t, err, 500, "target.name: Required value")
	_, err = r.Create(ctx, at, binding("q", "edge-1"), nil)
	registrytest.WantError(t, err, 404, `pods "q" not found`)
	elsewhere := binding("p", "edge-1")
	elsewhere.Namespace = "other"
	_, err = r.Create(ctx, at, elsewhere, nil)
	registrytest.WantError(t, err, 400, "namespace")
	if _, err = r.Create(ctx, at, binding("p", "edge-1"), &metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Fatal(err)
	}
	res, err := r.Create(ctx, at, binding("p", "edge-1"), nil)
	if err != nil || !res.Created || !strings.Contains(string(res.JSON), `"Success"`) {
		t.Fatalf("%+v, %v", res, err)
	}
	got, err := r.Get(ctx, registrytest.Target(t, kube.Pod, "default", "p"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if bound := registrytest.Decode[corev1.Pod](t, got.JSON); bound.Spec.NodeName != "edge-1" || bound.Labels["a"] != "b" {
		t.Errorf("bound pod: %s", got.JSON)
	}
	_, err = r.Create(ctx, at, binding("p", "edge-2"), nil)
	registrytest.WantError(t, err, 409, `pod p is already assigned to node "edge-1"`)
}

func TestEviction(t *testing.T) {
	r := registrytest.New(t)
	registrytest.Create(t, r, newPod("p", "edge-1"))
	at := registrytest.Target(t, kube.Pod, "default", "p", "eviction")
	grace := int64(7)
	body := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p"}, DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &grace, DryRun: []string{"All"}}}
	if _, err := r.Create(ctx, at, body, nil); err != nil {
		t.Fatal(err)
	}
	body.DeleteOptions.DryRun = nil
	res, err := r.Create(ctx, at, body, nil)
	if err != nil || !res.Created || registrytest.Decode[metav1.Status](t, res.JSON).Code != 201 {
		t.Fatalf("%+v, %v", res, err)
	}
	got, err := r.Get(ctx, registrytest.Target(t, kube.Pod, "default", "p"), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := registrytest.Decode[corev1.Pod](t, got.JSON)
	if p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 7 || p.ResourceVersion != "2" ||
		len(p.Status.Conditions) != 1 || p.Status.Conditions[0].Type != corev1.DisruptionTarget {
		t.Fatalf("evicted pod: %s", got.JSON)
	}
}

// issuer signs what it is asked for in plain words.
type issuer struct{}

func (issuer) IssueToken(_ context.Context, sa *corev1.ServiceAccount, to satoken.Bound, audiences []string, lifetime time.Duration) (string, time.Time, error) {
	words := append([]string{sa.Name}, audiences...)
	if to.Pod != nil {
		words = append(words, "for", to.Pod.Name)
	}
	if to.Secret != nil {
		words = append(words, "while", to.Secret.Name)
	}
	if to.Node != nil {
		words = append(words, "on", string(to.Node.UID))
	}
	return strings.Join(words, " "), time.Unix(0, 0).Add(lifetime), nil
}

func TestToken(t *testing.T) {
	kinds := builtin.New()
	if err := podverbs.Install(kinds, issuer{}); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	registrytest.Create(t, r, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "robot"}})
	pod := newPod("p", "")
	pod.Spec.ServiceAccountName = "robot"
	registrytest.Create(t, r, pod)
	registrytest.Create(t, r, newPod("other", ""))
	registrytest.Create(t, r, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}})
	node := registrytest.Create(t, r, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge-1"}})
	away := newPod("away", "edge-1")
	away.Spec.ServiceAccountName = "robot"
	registrytest.Create(t, r, away)
	at := registrytest.TargetOf(t, kinds, kube.ServiceAccount, "default", "robot", "token")
	seconds := func(n int64) *int64 { return &n }
	bound := func(kind, name, uid string) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name, UID: types.UID(uid)}
	}
	for name, test := range map[string]struct {
		spec  authenticationv1.TokenRequestSpec
		token string
		until int64 // seconds of lifetime
		code  int32
		text  string
	}{
		"plain":     {authenticationv1.TokenRequestSpec{Audiences: []string{"a", "b"}}, "robot a b", 3600, 0, ""},
		"pod":       {authenticationv1.TokenRequestSpec{ExpirationSeconds: seconds(600), BoundObjectRef: bound("Pod", "p", "")}, "robot for p", 600, 0, ""},
		"too short": {authenticationv1.TokenRequestSpec{ExpirationSeconds: seconds(599)}, "", 0, 422, "may not specify a duration less than 10 minutes"},
		"long":      {authenticationv1.TokenRequestSpec{Audiences: []string{"a"}, ExpirationSeconds: seconds(360_000_000)}, "robot a", 31_536_000, 0, ""},
		"too long":  {authenticationv1.TokenRequestSpec{ExpirationSeconds: seconds(1 << 62)}, "", 0, 422, "may not specify a duration larger than 2^32 seconds"},
		"audiences": {authenticationv1.TokenRequestSpec{Audiences: make([]string, 17)}, "", 0, 422, "spec.audiences: Too many: 17: must have at most 16 items"},
		"audience":  {authenticationv1.TokenRequestSpec{Audiences: []string{strings.Repeat("a", 513)}}, "", 0, 422, "spec.audiences[0]: Too long: may not be more than 512 bytes"},
		"secret":    {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Secret", "s", "")}, "robot while s", 3600, 0, ""},
		"node":      {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Node", "edge-1", string(node.UID))}, "robot on " + string(node.UID), 3600, 0, ""},
		"its node":  {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Pod", "away", "")}, "robot for away on " + string(node.UID), 3600, 0, ""},
		"no secret": {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Secret", "q", "")}, "", 0, 404, `secrets "q" not found`},
		"old node":  {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Node", "edge-1", "x")}, "", 0, 409, `Operation cannot be fulfilled on Node "edge-1"`},
		"no pod":    {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Pod", "q", "")}, "", 0, 404, `pods "q" not found`},
		"other pod": {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Pod", "p", "x")}, "", 0, 409, "the UID in the bound object reference (x)"},
		"not its":   {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Pod", "other", "")}, "", 0, 400, "to pod running with different serviceaccount name"},
		"a house":   {authenticationv1.TokenRequestSpec{BoundObjectRef: bound("House", "p", "")}, "", 0, 400, "cannot bind token to object of type /v1, Kind=House"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := r.Create(ctx, at, &authenticationv1.TokenRequest{Spec: test.spec}, nil)
			if test.code != 0 {
				registrytest.WantError(t, err, test.code, test.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := registrytest.Decode[authenticationv1.TokenRequest](t, res.JSON)
			if got.Status.Token != test.token || got.Status.ExpirationTimestamp.Unix() != test.until || got.Kind != "TokenRequest" || *got.Spec.ExpirationSeconds != test.until {
				t.Errorf("issued %s", res.JSON)
			}
			if cut := test.spec.ExpirationSeconds != nil && *test.spec.ExpirationSeconds > test.until; cut != (len(res.Warnings) > 0) {
				t.Errorf("warnings %q", res.Warnings)
			}
		})
	}
}

// TestTokenRequestOfAnother checks that a body about another account than the URL's is refused.
func TestTokenRequestOfAnother(t *testing.T) {
	kinds := builtin.New()
	if err := podverbs.Install(kinds, issuer{}); err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	sa := registrytest.Create(t, r, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "robot"}})
	at := registrytest.TargetOf(t, kinds, kube.ServiceAccount, "default", "robot", "token")
	for name, test := range map[string]struct {
		meta metav1.ObjectMeta
		code int32
		text string
	}{
		"name":      {metav1.ObjectMeta{Name: "king"}, 422, `metadata.name: Invalid value: "king": must match the service account name if specified`},
		"namespace": {metav1.ObjectMeta{Namespace: "castle"}, 422, "must match the service account namespace if specified"},
		"uid":       {metav1.ObjectMeta{UID: "x"}, 409, "the UID in the token request (x) does not match the UID of the service account (" + string(sa.UID) + ")"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Create(ctx, at, &authenticationv1.TokenRequest{ObjectMeta: test.meta}, nil)
			registrytest.WantError(t, err, test.code, test.text)
		})
	}
	res, err := r.Create(ctx, at, &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Name: "robot", UID: sa.UID}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := registrytest.Decode[authenticationv1.TokenRequest](t, res.JSON)
	if got.UID != sa.UID || len(got.Spec.Audiences) != 1 || got.Spec.Audiences[0] != satoken.Issuer {
		t.Errorf("answered %s", res.JSON)
	}
}
