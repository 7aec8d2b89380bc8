package crd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// bench is a registry with a running controller.
type bench struct {
	t     testing.TB
	reg   *registry.Registry
	kinds *resource.Kinds
	c     *Controller
	rests chan struct{} // one token for each call of Config.Rest
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, kinds: registrytest.Kinds(), rests: make(chan struct{}, 8)}
	b.reg = registrytest.Start(t, registry.Config{Kinds: b.kinds})
	b.c = New(Config{Client: b.reg.Client(), Kinds: b.kinds, Read: b.read, Rest: func() { b.rests <- struct{}{} }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

func (b *bench) read(ctx context.Context, name string) (kube.Object, error) {
	k, _ := b.kinds.Lookup(kube.CustomResourceDefinition)
	res, err := b.reg.Get(ctx, resource.Target{Kind: k, Name: name}, nil)
	if err != nil {
		return nil, err
	}
	return k.Codec.Decode(res.JSON)
}

// define creates a cluster-scoped definition of KIND in example.dev with the fields that props has.
func (b *bench) define(kind, plural string, props map[string]apiextensionsv1.JSONSchemaProps) *apiextensionsv1.CustomResourceDefinition {
	b.t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".example.dev"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.dev", Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: props}}}},
		},
	}
	crd.SetGroupVersionKind(kube.CustomResourceDefinition)
	made, err := b.reg.Client().Create(b.t.Context(), crd)
	if err != nil {
		b.t.Fatal(err)
	}
	return made.(*apiextensionsv1.CustomResourceDefinition)
}

// served waits until a kind is served, or no longer.
func (b *bench) served(gvk kube.GVK, want bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	for range b.kinds.Changes(ctx) {
		if _, ok := b.kinds.Lookup(gvk); ok == want {
			return
		}
	}
	b.t.Fatalf("%s is never served=%v", gvk, want)
}

func kindOf(name string) kube.GVK { return kube.GVK{Group: "example.dev", Version: "v1", Kind: name} }

func object(gvk kube.GVK, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	u.SetName(name)
	return u
}

// A thousand definitions are served, and their cost is that of declarations: no schema is compiled that no object needs.
func TestManyDefinitions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	b := newBench(t)
	const n = 1000
	for i := range n {
		b.define(fmt.Sprintf("Kind%d", i), fmt.Sprintf("kinds%d", i), map[string]apiextensionsv1.JSONSchemaProps{"size": {Type: "integer"}})
	}
	last := kindOf(fmt.Sprintf("Kind%d", n-1))
	b.served(last, true)
	if held := len(b.c.schemas.held); held > 0 {
		t.Errorf("%d schemas are compiled, and no object exists", held)
	}
	if _, err := b.reg.Client().Create(t.Context(), object(last, "a")); err != nil {
		t.Error(err)
	}
	if held := len(b.c.schemas.held); held != 1 {
		t.Errorf("%d schemas are compiled for one object", held)
	}
}

// Loops see definitions without their schemas, which are most of them, and writing one as a loop sees it keeps its schema.
func TestDefinitionsAreSlim(t *testing.T) {
	b := newBench(t)
	b.define("Thing", "things", map[string]apiextensionsv1.JSONSchemaProps{"size": {Type: "integer"}})
	b.served(kindOf("Thing"), true)
	client := b.reg.Client()
	if err := client.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	crd, ok := control.Get[*apiextensionsv1.CustomResourceDefinition](client, kube.CustomResourceDefinition, "", "things.example.dev")
	if !ok || crd.Spec.Versions[0].Schema != nil || crd.Spec.Names.Kind != "Thing" {
		t.Fatalf("%v %+v", ok, crd)
	}
	labelled := crd.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	if _, err := client.Update(t.Context(), labelled, ""); err != nil {
		t.Errorf("a loop cannot change a label: %v", err)
	}
	whole, err := b.c.cfg.Read.definition(t.Context(), crd.Name)
	if err != nil || whole.Labels["a"] != "b" || whole.Spec.Versions[0].Schema == nil {
		t.Errorf("the stored one has lost its schema: %+v, %v", whole, err)
	}
}

// What no object has used for a while is forgotten, with the memory that it took; it comes back when it is needed.
func TestSchemasAreForgotten(t *testing.T) {
	b := newBench(t)
	thing := kindOf("Thing")
	b.define("Thing", "things", map[string]apiextensionsv1.JSONSchemaProps{"size": {Type: "integer"}})
	b.served(thing, true)
	client, s := b.reg.Client(), b.c.schemas
	if _, err := client.Create(t.Context(), object(thing, "a")); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	for _, h := range s.held {
		h.used = h.used.Add(-idleSchema)
	}
	if s.bytes == 0 || s.sweep == nil {
		t.Errorf("%d bytes are held, timer %v", s.bytes, s.sweep)
	}
	s.mu.Unlock()
	s.clean()
	<-b.rests
	if len(s.held) != 0 || s.bytes != 0 || s.sweep != nil {
		t.Errorf("left: %d schemas, %d bytes, timer %v", len(s.held), s.bytes, s.sweep)
	}
	bad := object(thing, "b")
	bad.Object["size"] = "x"
	if _, err := client.Create(t.Context(), bad); err == nil {
		t.Error("the schema does not come back")
	}
}

// Together, compiled schemas have a bound; the longest unused goes first.
func TestSchemasAreBounded(t *testing.T) {
	s := newSchemas(Config{})
	for i := range 10 {
		key := schemaKey{version: fmt.Sprint(i)}
		h := &held{used: time.Unix(int64(i), 0)}
		s.held[key] = h
		s.compiled(key, h, maxSchemaBytes/4)
	}
	if len(s.held) != 4 || s.held[schemaKey{version: "9"}] == nil || s.held[schemaKey{version: "5"}] != nil || s.bytes != maxSchemaBytes {
		t.Errorf("%d schemas, %d bytes", len(s.held), s.bytes)
	}
	key := schemaKey{version: "huge"}
	h := &held{used: time.Unix(100, 0)}
	s.held[key] = h
	s.compiled(key, h, 10*maxSchemaBytes)
	if len(s.held) != 1 || s.held[key] == nil {
		t.Errorf("beside one that is too large %d are kept", len(s.held)-1)
	}
}

// Groups of the Kubernetes community need an approval, and the condition says whether they have one.
func TestApproval(t *testing.T) {
	for annotation, want := range map[string]string{
		"https://github.com/kubernetes/kubernetes/pull/1": "True ApprovedAnnotation",
		"unapproved, an experiment":                       "False UnapprovedAnnotation",
		"":                                                "False MissingAnnotation",
		"yes":                                             "False InvalidAnnotation",
	} {
		crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "x.k8s.io"}}
		crd.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: annotation}
		if c := approval(crd); c == nil || fmt.Sprint(c.Status, " ", c.Reason) != want {
			t.Errorf("%q: %+v, want %s", annotation, c, want)
		}
	}
	if c := approval(&apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.dev"}}); c != nil {
		t.Errorf("another group: %+v", c)
	}
}

// A definition from an old store may have a schema that is not structural: the condition says so.
func TestNonStructural(t *testing.T) {
	crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		PreserveUnknownFields: true,
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Schema: &apiextensionsv1.CustomResourceValidation{
			OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Properties: map[string]apiextensionsv1.JSONSchemaProps{"a": {}}}}}},
	}}
	c := structure(crd)
	if c == nil || c.Status != apiextensionsv1.ConditionTrue || c.Reason != "Violations" || !strings.Contains(c.Message, "spec.preserveUnknownFields: Invalid value: true: must be false") ||
		!strings.Contains(c.Message, "spec.versions[0].schema.openAPIV3Schema.type: Required value") {
		t.Errorf("%+v", c)
	}
}
