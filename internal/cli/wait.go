package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Wait waits until objects are as they should be.
type Wait struct {
	Cluster
	Args          []string      `arg:"" name:"what" help:"TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all."`
	For           string        `required:"" help:"condition=NAME[=VALUE], jsonpath=PATH=VALUE, create or delete." placeholder:"WHAT"`
	Selector      string        `short:"l" help:"All objects with these labels." placeholder:"SELECTOR"`
	All           bool          `help:"All objects of the type in the namespace."`
	AllNamespaces bool          `short:"A" help:"Of all namespaces (with -l or --all)."`
	Timeout       time.Duration `default:"30s" help:"Give up after this time." placeholder:"DURATION"`
}

// Run waits for one object after the other: all must come true.
func (w *Wait) Run(ctx context.Context, s *Streams) error {
	c, err := w.connect(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, w.Timeout, fmt.Errorf("timed out after %s waiting for %s", w.Timeout, w.For))
	defer cancel()
	ns := c.namespace
	if w.AllNamespaces {
		ns = ""
	}
	kind, arg, _ := strings.Cut(w.For, "=")
	if kind == "create" {
		return w.created(ctx, c, s, ns)
	}
	test, err := condition(kind, arg)
	if err != nil {
		return err
	}
	objs, maps, err := c.selected(ctx, w.Args, w.Selector, w.All, ns)
	if kind == "delete" && isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(objs) == 0 && kind != "delete" {
		return errors.New("no matching resources found")
	}
	for i, o := range objs {
		if kind == "delete" {
			if err := c.waitGone(ctx, maps[i], o.GetNamespace(), o.GetName(), o.GetUID()); err != nil {
				return fmt.Errorf("%w on %s", err, display(maps[i], o.GetName()))
			}
		} else if err := w.met(ctx, c, maps[i], o, test); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "%s condition met\n", display(maps[i], o.GetName()))
	}
	return nil
}

func (w *Wait) met(ctx context.Context, c *conn, m *meta.RESTMapping, o *unstructured.Unstructured, test func(*unstructured.Unstructured) (bool, error)) error {
	own := *c
	if o.GetNamespace() != "" {
		own.namespace = o.GetNamespace()
	}
	if err := own.until(ctx, target{m, o.GetName()}, test); err != nil {
		return fmt.Errorf("%w on %s", err, display(m, o.GetName()))
	}
	return nil
}

// created polls: a name that does not exist yet can have no watch of its own type before the type exists.
func (w *Wait) created(ctx context.Context, c *conn, s *Streams, ns string) error {
	for {
		objs, maps, err := c.selected(ctx, w.Args, w.Selector, w.All, ns)
		if err == nil && len(objs) > 0 {
			for i, o := range objs {
				fmt.Fprintf(s.Out, "%s condition met\n", display(maps[i], o.GetName()))
			}
			return nil
		}
		if err != nil && !isNotFound(err) {
			return waitError(ctx, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// condition makes the test of --for.
func condition(kind, arg string) (func(*unstructured.Unstructured) (bool, error), error) {
	switch kind {
	case "delete":
		return nil, nil
	case "condition":
		name, want, ok := strings.Cut(arg, "=")
		if !ok {
			want = "True"
		}
		if name == "" {
			return nil, errors.New("--for=condition= needs a name, for example --for=condition=Ready")
		}
		return func(o *unstructured.Unstructured) (bool, error) { return hasCondition(o, name, want), nil }, nil
	case "jsonpath":
		expr, want, ok := strings.Cut(arg, "}=")
		if ok {
			expr += "}"
		} else {
			expr, want, ok = strings.Cut(arg, "=")
		}
		p, err := parsePath(strings.Trim(expr, "'"))
		if err != nil {
			return nil, fmt.Errorf("--for: %w", err)
		}
		return func(o *unstructured.Unstructured) (bool, error) {
			got, err := field(p, o.Object)
			if err != nil {
				return false, err
			}
			return got != "" && (!ok || got == want), nil
		}, nil
	}
	return nil, fmt.Errorf("--for=%s is nothing to wait for; use condition=NAME, jsonpath=PATH=VALUE, create or delete", kind)
}

// hasCondition looks into status.conditions; a condition that tells of an older generation does not count.
func hasCondition(o *unstructured.Unstructured, name, want string) bool {
	conditions, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
	if err != nil {
		return false
	}
	if seen, found, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration"); found && seen < o.GetGeneration() {
		return false
	}
	for _, c := range conditions {
		m, ok := c.(map[string]any)
		if !ok {
			continue
		}
		typ, _ := m["type"].(string)
		status, _ := m["status"].(string)
		if strings.EqualFold(typ, name) {
			return strings.EqualFold(status, want)
		}
	}
	return false
}
