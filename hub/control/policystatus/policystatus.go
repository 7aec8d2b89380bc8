// Package policystatus type-checks the expressions of ValidatingAdmissionPolicies against the schemas of the kinds that they are
// about, and writes what it found into their status. That is advice: admission evaluates the expressions in any case.
//
//	policy ─► kinds of its rules ─► their schemas ─► expressions, compiled with types ─► status.typeChecking
package policystatus

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config of a Controller. All fields are required.
type Config struct {
	Client control.Client
	// Kind returns the kind that a resource has; ok is false when it is not served.
	Kind func(schema.GroupVersionResource) (gvk kube.GVK, ok bool)
	// Schema returns the schema of a kind, without references; nil when it has none.
	Schema func(kube.GVK) (*spec.Schema, error)
	Log    *slog.Logger
}

// Controller keeps the status of policies.
type Controller struct {
	cfg     Config
	checker validating.TypeChecker
	loop    *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg}
	c.checker = validating.TypeChecker{SchemaResolver: c, RestMapper: mapper{kind: cfg.Kind}}
	c.loop = &control.Loop{
		Name: "policystatus", Client: cfg.Client, Reconcile: c.reconcile, Log: cfg.Log,
		Sources: []control.Source{{GVK: kube.ValidatingAdmissionPolicy}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// ResolveSchema implements resolver.SchemaResolver.
func (c *Controller) ResolveSchema(gvk schema.GroupVersionKind) (*spec.Schema, error) {
	s, err := c.cfg.Schema(gvk)
	if err == nil && s == nil {
		err = fmt.Errorf("cannot resolve %v: %w", gvk, resolver.ErrSchemaNotFound)
	}
	return s, err
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	p, ok := control.Get[*admissionregistrationv1.ValidatingAdmissionPolicy](c.cfg.Client, kube.ValidatingAdmissionPolicy, "", key.Name)
	if !ok || p.Generation <= p.Status.ObservedGeneration {
		return 0, nil
	}
	next := p.DeepCopy()
	next.Status.TypeChecking = &admissionregistrationv1.TypeChecking{ExpressionWarnings: c.checker.Check(p)}
	next.Status.ObservedGeneration = p.Generation
	_, err := c.cfg.Client.Update(ctx, next, "status")
	return 0, control.IgnoreNotFound(err)
}

// mapper is what a type checker asks of a RESTMapper. The other methods are not called.
type mapper struct {
	meta.RESTMapper
	kind func(schema.GroupVersionResource) (kube.GVK, bool)
}

// KindsFor implements meta.RESTMapper.
func (m mapper) KindsFor(gvr schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	gvk, ok := m.kind(gvr)
	if !ok {
		return nil, &meta.NoResourceMatchError{PartialResource: gvr}
	}
	return []schema.GroupVersionKind{gvk}, nil
}
