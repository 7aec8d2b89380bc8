package registry_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// witness records the user of requests, as a kind's rules and admission see it.
type witness struct {
	mu   sync.Mutex
	seen []string
}

func (w *witness) note(where string, q *resource.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if q == nil {
		w.seen = append(w.seen, where+": nobody")
		return
	}
	w.seen = append(w.seen, fmt.Sprintf("%s: %s by %q", where, q.User.Name, q.Manager))
}

// take returns what was noted since the last call, each line once.
func (w *witness) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	slices.Sort(seen)
	return slices.Compact(seen)
}

func (w *witness) Mutate(_ context.Context, a *registry.AdmissionRequest) error {
	w.note("mutate "+string(a.Operation), &a.Request)
	return nil
}

func (w *witness) Validate(_ context.Context, a *registry.AdmissionRequest) error {
	w.note("validate "+string(a.Operation), &a.Request)
	return nil
}

// watchOver makes the rules of ConfigMaps record the user.
func (w *witness) watchOver(t *testing.T, kinds *resource.Kinds) {
	t.Helper()
	k, ok := kinds.Lookup(kube.ConfigMap)
	if !ok {
		t.Fatal("no ConfigMaps")
	}
	create, update := k.Rules.ValidateCreate, k.Rules.ValidateUpdate
	k.Rules.PrepareCreate = func(ctx context.Context, _ kube.Object) { w.note("prepare create", resource.RequestFrom(ctx)) }
	k.Rules.PrepareUpdate = func(ctx context.Context, _, _ kube.Object) { w.note("prepare update", resource.RequestFrom(ctx)) }
	k.Rules.ValidateCreate = func(ctx context.Context, obj kube.Object) field.ErrorList {
		w.note("rules create", resource.RequestFrom(ctx))
		return create(ctx, obj)
	}
	k.Rules.ValidateUpdate = func(ctx context.Context, obj, old kube.Object) field.ErrorList {
		w.note("rules update", resource.RequestFrom(ctx))
		return update(ctx, obj, old)
	}
}

// TestRulesAndAdmissionSeeWhoAsks goes through every verb, and through the client of the hub's own parts.
func TestRulesAndAdmissionSeeWhoAsks(t *testing.T) {
	w, kinds := &witness{}, registrytest.Kinds()
	w.watchOver(t, kinds)
	r := registrytest.Start(t, registry.Config{Kinds: kinds, Admission: w})
	at := func(name string) resource.Target {
		return registrytest.TargetOf(t, kinds, kube.ConfigMap, "default", name)
	}
	jane := auth.WithUser(t.Context(), auth.User{Name: "jane"})
	c := r.ClientAs(auth.Controller("deployment-controller"))
	const robot = `system:serviceaccount:kube-system:deployment-controller by "kube-controller-manager"`
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"create", func() error {
			_, err := r.Create(jane, at(""), configMap("a"), &metav1.CreateOptions{FieldManager: "kubectl-create"})
			return err
		}, []string{`mutate CREATE: jane by "kubectl-create"`, `prepare create: jane by "kubectl-create"`, `rules create: jane by "kubectl-create"`, `validate CREATE: jane by "kubectl-create"`}},
		{"update", func() error {
			_, err := r.Update(jane, at("a"), configMap("a", "k", "v"), &metav1.UpdateOptions{FieldManager: "edit"})
			return err
		}, []string{`mutate UPDATE: jane by "edit"`, `prepare update: jane by "edit"`, `rules update: jane by "edit"`, `validate UPDATE: jane by "edit"`}},
		{"patch", func() error {
			_, err := r.Patch(jane, at("a"), types.MergePatchType, []byte(`{"data":{"k":"w"}}`), &metav1.PatchOptions{FieldManager: "patch"})
			return err
		}, []string{`mutate UPDATE: jane by "patch"`, `prepare update: jane by "patch"`, `rules update: jane by "patch"`, `validate UPDATE: jane by "patch"`}},
		{"delete", func() error {
			_, err := r.Delete(jane, at("a"), nil)
			return err
		}, []string{`mutate DELETE: jane by ""`, `validate DELETE: jane by ""`}},
		{"nobody", func() error {
			_, err := r.Create(t.Context(), at(""), configMap("n"), nil)
			return err
		}, []string{`mutate CREATE: system:anonymous by ""`, `prepare create: system:anonymous by ""`, `rules create: system:anonymous by ""`, `validate CREATE: system:anonymous by ""`}},
		{"client", func() error {
			_, err := c.Create(t.Context(), configMap("b"))
			return err
		}, []string{"mutate CREATE: " + robot, "prepare create: " + robot, "rules create: " + robot, "validate CREATE: " + robot}},
		{"commit", func() error {
			b, _ := r.Get(t.Context(), at("b"), nil)
			old := registrytest.Decode[corev1.ConfigMap](t, b.JSON)
			next := old.DeepCopy()
			next.Data = map[string]string{"k": "v"}
			n, _ := r.Get(t.Context(), at("n"), nil)
			return c.Commit(t.Context(), []control.Write{{Object: next, Old: old}, {Object: configMap("c")}, {Old: registrytest.Decode[corev1.ConfigMap](t, n.JSON), Delete: true}})
		}, []string{"mutate CREATE: " + robot, "mutate DELETE: " + robot, "mutate UPDATE: " + robot, "prepare create: " + robot, "prepare update: " + robot,
			"rules create: " + robot, "rules update: " + robot, "validate CREATE: " + robot, "validate DELETE: " + robot, "validate UPDATE: " + robot}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := w.take(); !slices.Equal(got, step.want) {
			t.Errorf("%s was seen as\n%q, want\n%q", step.what, got, step.want)
		}
	}
}

// verdict answers reviews: allowed when the review is about its own user.
type verdict struct{}

func (verdict) Handle(_ context.Context, q *resource.Request, body runtime.Object, _ resource.Objects) (resource.Answer, error) {
	review := body.(*authorizationv1.SubjectAccessReview).DeepCopy()
	review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: review.Spec.User == q.User.Name, Reason: "asked by " + q.User.Name}
	return resource.Answer{Object: review, Warnings: []string{"a test answers"}}, nil
}

// reviewKind is a kind of which nothing is stored.
func reviewKind(verbs ...string) *resource.Kind {
	gvk := authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview")
	return &resource.Kind{
		GVK: gvk, Plural: "subjectaccessreviews", Singular: "subjectaccessreview", Verbs: verbs, Handler: verdict{},
		New: func() kube.Object {
			return &authorizationv1.SubjectAccessReview{TypeMeta: metav1.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}}
		},
		Rules: resource.Rules{
			ValidateCreate: func(_ context.Context, obj kube.Object) (errs field.ErrorList) {
				if obj.(*authorizationv1.SubjectAccessReview).Spec.User == "" {
					errs = append(errs, field.Required(field.NewPath("spec", "user"), "somebody must be meant"))
				}
				return errs
			},
		},
	}
}

// TestKindWithoutStorage adds a kind at run time whose creations are answered and not stored.
func TestKindWithoutStorage(t *testing.T) {
	w, kinds := &witness{}, registrytest.Kinds()
	r := registrytest.Start(t, registry.Config{Kinds: kinds, Admission: w})
	registrytest.Create(t, r, configMap("first"))
	w.take()
	kinds.Remove(kube.SubjectAccessReview) // the built-in one
	if err := kinds.Add(reviewKind("create", "list")); err == nil {
		t.Fatal("a kind without storage can be listed")
	}
	if err := kinds.Add(reviewKind("create")); err != nil {
		t.Fatal(err)
	}
	at := registrytest.TargetOf(t, kinds, authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), "", "")
	jane := auth.WithUser(t.Context(), auth.User{Name: "jane"})
	review := func(user string) *authorizationv1.SubjectAccessReview {
		return &authorizationv1.SubjectAccessReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"},
			Spec:     authorizationv1.SubjectAccessReviewSpec{User: user},
		}
	}
	res, err := r.Create(jane, at, review("jane"), &metav1.CreateOptions{FieldManager: "kubectl"})
	if err != nil {
		t.Fatal(err)
	}
	if got := registrytest.Decode[authorizationv1.SubjectAccessReview](t, res.JSON); !res.Created || !got.Status.Allowed || got.Status.Reason != "asked by jane" ||
		got.Kind != "SubjectAccessReview" || len(res.Warnings) != 1 {
		t.Errorf("answered %s, %+v", res.JSON, res)
	}
	if got, want := w.take(), []string{`mutate CREATE: jane by "kubectl"`, `validate CREATE: jane by "kubectl"`}; !slices.Equal(got, want) {
		t.Errorf("admission saw %q, want %q", got, want)
	}
	_, err = r.Create(jane, at, review(""), nil)
	registrytest.WantError(t, err, 422, "spec.user: Required value: somebody must be meant")

	one := at
	one.Name = "x"
	for verb, ask := range map[string]func() error{
		"get":              func() error { _, err := r.Get(jane, one, nil); return err },
		"list":             func() error { _, err := r.List(jane, at, nil); return err },
		"watch":            func() error { _, err := r.Watch(jane, at, nil); return err },
		"update":           func() error { _, err := r.Update(jane, one, review("jane"), nil); return err },
		"patch":            func() error { _, err := r.Patch(jane, one, types.MergePatchType, []byte("{}"), nil); return err },
		"delete":           func() error { _, err := r.Delete(jane, one, nil); return err },
		"deletecollection": func() error { _, err := r.DeleteCollection(jane, at, nil, nil); return err },
	} {
		t.Run(verb, func(t *testing.T) { registrytest.WantError(t, ask(), 405, "not supported") })
	}
	if err := r.Client().Commit(t.Context(), []control.Write{{Object: review("jane")}}); err == nil {
		t.Error("a review was committed")
	}
	list, err := r.List(ctx, registrytest.Target(t, kube.ConfigMap, "", ""), nil)
	if err != nil || list.ResourceVersion != "1" {
		t.Errorf("the log is at %s, %v: something was stored", list.ResourceVersion, err)
	}
}
