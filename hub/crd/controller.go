package crd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/crd/conversion"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds are where definitions become served kinds; *resource.Kinds is one.
type Kinds interface {
	All() []*resource.Kind
	// Replace removes kinds and serves others in one step, or does nothing.
	Replace(gone []schema.GroupVersionKind, kinds ...*resource.Kind) error
}

// Config is what a Controller needs. Client, Kinds and Read are required.
type Config struct {
	Client control.Client
	Kinds  Kinds
	// Read returns a definition as it is stored, with its schemas, for the caller.
	Read     Read
	Webhooks conversion.Caller // nil: conversions by webhook fail
	// Meta returns the OpenAPI definitions that those of custom kinds refer to, for server-side apply; nil: merge rules are deduced
	// from the objects.
	Meta Models
	// Rest is called some time after the last work that took much memory; nil: nothing is.
	Rest func()
	Log  *slog.Logger
}

// Read returns a CustomResourceDefinition as it is stored, for the caller.
type Read func(ctx context.Context, name string) (kube.Object, error)

func (r Read) definition(ctx context.Context, name string) (*apiextensionsv1.CustomResourceDefinition, error) {
	obj, err := r(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read definition %s: %w", name, err)
	}
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("read definition %s: %T is none", name, obj)
	}
	return crd, nil
}

// Controller serves what CustomResourceDefinitions define. Its fields but served do not change after New.
type Controller struct {
	cfg     Config
	client  control.Client
	loop    *control.Loop
	schemas *schemas

	mu sync.Mutex // held while kinds are served or removed
	// served are the definitions that were served last, by name, also those that have no kinds because Kubernetes has them; guarded
	// by mu.
	served map[string]*definition
	// checked are the generations whose structure has been checked, by name; of the loop's one worker.
	checked map[string]checkedGeneration
}

// checkedGeneration is a generation of a definition with its NonStructuralSchema condition.
type checkedGeneration struct {
	uid        string
	generation int64
	condition  *apiextensionsv1.CustomResourceDefinitionCondition
}

// New returns a controller. Load serves what is defined, Run keeps it up to date.
func New(cfg Config) *Controller {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		cfg: cfg, client: cfg.Client, schemas: newSchemas(cfg),
		served: map[string]*definition{}, checked: map[string]checkedGeneration{},
	}
	c.loop = &control.Loop{
		Name: "crd", Client: cfg.Client, Log: cfg.Log, Reconcile: c.reconcile,
		Sources: []control.Source{{GVK: kube.CustomResourceDefinition}},
	}
	return c
}

// Load serves all established definitions. The hub calls it before it answers requests. A definition that cannot be served is
// logged: the others are.
func (c *Controller) Load() {
	for _, crd := range c.all() {
		c.checked[crd.Name] = checkedGeneration{string(crd.UID), crd.Generation, apihelpers.FindCRDCondition(crd, apiextensionsv1.NonStructuralSchema)}
		if !servable(crd) {
			continue
		}
		if err := c.serve(crd); err != nil {
			c.cfg.Log.Error("custom resource cannot be served", "definition", crd.Name, "error", err)
		}
	}
}

// Run follows definitions until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// all returns the definitions, without their schemas. They are shared: read-only.
func (c *Controller) all() []*apiextensionsv1.CustomResourceDefinition {
	return control.List[*apiextensionsv1.CustomResourceDefinition](c.client, kube.CustomResourceDefinition, "")
}

// servable reports whether the kinds of a definition are served.
func servable(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) || apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.NamesAccepted)
}

// reconcile brings one definition's status and kinds to what they should be.
func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	crd, ok := control.Get[*apiextensionsv1.CustomResourceDefinition](c.client, kube.CustomResourceDefinition, "", key.Name)
	if !ok {
		delete(c.checked, key.Name)
		if err := c.remove(key.Name); err != nil {
			return 0, err
		}
		c.lookAgain(key.Name) // its names are free now
		return 0, nil
	}
	if crd.DeletionTimestamp != nil {
		return 0, c.finalize(ctx, crd)
	}
	nonStructural, err := c.structureOf(ctx, crd)
	if err != nil {
		return 0, err
	}
	next := decide(crd, c.all(), nonStructural)
	if servable(next) { // first, because clients wait for the condition
		if err := c.serve(next); err != nil {
			return 0, err
		}
	}
	if apiequality.Semantic.DeepEqual(crd.Status, next.Status) {
		return 0, nil
	}
	if _, err := c.client.Update(ctx, next, "status"); err != nil {
		return 0, control.IgnoreNotFound(err)
	}
	if !apiequality.Semantic.DeepEqual(crd.Status.AcceptedNames, next.Status.AcceptedNames) {
		c.lookAgain(crd.Name)
	}
	return 0, nil
}

// structureOf returns the NonStructuralSchema condition of a definition. It is computed once for each generation.
func (c *Controller) structureOf(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinitionCondition, error) {
	if done := c.checked[crd.Name]; done.uid == string(crd.UID) && done.generation == crd.Generation {
		return done.condition, nil
	}
	whole, err := c.cfg.Read.definition(ctx, crd.Name)
	if err != nil {
		return nil, err
	}
	c.schemas.worked() // the API has checked the schemas, which took more
	condition := structure(whole)
	c.checked[crd.Name] = checkedGeneration{string(whole.UID), whole.Generation, condition}
	return condition, nil
}

// lookAgain reconciles the other definitions of a definition's group, whose names may have become free.
func (c *Controller) lookAgain(name string) {
	group := groupOf(name)
	for _, crd := range c.all() {
		if crd.Spec.Group == group && crd.Name != name && !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.NamesAccepted) {
			c.loop.Enqueue(control.KeyOf(crd))
		}
	}
}

// remove ends the service of a definition's kinds.
func (c *Controller) remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.served[name]
	if d == nil {
		return nil
	}
	if err := c.cfg.Kinds.Replace(d.gvks()); err != nil {
		return err
	}
	d.close()
	delete(c.served, name)
	return nil
}

// serve serves the kinds of a definition as it is now. Nothing happens when they are served so already: watches end with a kind
// that is declared anew.
func (c *Controller) serve(crd *apiextensionsv1.CustomResourceDefinition) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.served[crd.Name]
	if last.same(crd) {
		last.terminating.Store(crd.DeletionTimestamp != nil)
		return nil
	}
	next := newDefinition(crd, c.cfg, c.schemas)
	var gone []schema.GroupVersionKind
	if last != nil {
		gone = last.gvks()
	}
	if c.overlaps(crd) {
		next.kinds = nil
	}
	if err := c.cfg.Kinds.Replace(gone, next.kinds...); err != nil {
		return fmt.Errorf("serve the kinds of %s: %w", crd.Name, err)
	}
	if last != nil {
		last.close()
	}
	c.served[crd.Name] = next
	return nil
}

// overlaps reports whether Kubernetes itself has the resource or the kind of a definition: then that is what is served.
func (c *Controller) overlaps(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, k := range c.cfg.Kinds.All() {
		if !k.Unstructured() && k.GVK.Group == crd.Spec.Group && (k.Plural == crd.Spec.Names.Plural || k.GVK.Kind == crd.Spec.Names.Kind) {
			return true
		}
	}
	return false
}
