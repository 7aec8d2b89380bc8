package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/internal/cli/printer"
)

// Wait waits until objects are as they should be.
type Wait struct {
	Cluster
	Args          []string      `arg:"" name:"what" help:"TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all."`
	For           string        `required:"" help:"condition=NAME[=VALUE], jsonpath=PATH=VALUE, create or delete." placeholder:"WHAT"`
	Selector      string        `short:"l" help:"All objects with these labels." placeholder:"SELECTOR"`
	All           bool          `help:"All objects of the type in the namespace."`
	AllNamespaces bool          `short:"A" help:"Of all namespaces (with -l or --all)."`
	Timeout       time.Duration `default:"30s" help:"Give up after this time; 0 checks once, less than 0 waits without limit." placeholder:"DURATION"`
}

// Help explains the exit code.
func (*Wait) Help() string {
	return "Ends with 0 when it has come true for all objects, and with 1 when the time is over, an object does not exist or was deleted."
}

// Run waits for one object after the other: all must come true.
func (w *Wait) Run(ctx context.Context, s *Streams) error {
	c, err := w.connect(ctx, s)
	if err != nil {
		return err
	}
	kind, arg, _ := strings.Cut(w.For, "=")
	test, err := condition(kind, arg)
	if err != nil {
		return err
	}
	if w.Timeout == 0 {
		return w.once(ctx, c, s, kind, test)
	}
	if w.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.Timeout, fmt.Errorf("timed out after %s waiting for %s", w.Timeout, w.For))
		defer cancel()
	}
	if kind == "create" {
		return w.created(ctx, c, s)
	}
	objs, missing, err := c.selected(ctx, w.choice(c))
	if err != nil {
		return waitError(ctx, err)
	}
	if kind == "delete" {
		missing = nil
	} else if len(objs) == 0 && len(missing) == 0 {
		return errors.New("no matching resources found")
	}
	for _, o := range objs {
		m, o := o.mapping, o.object
		if kind == "delete" {
			if err := c.waitGone(ctx, m, o.GetNamespace(), o.GetName(), o.GetUID()); err != nil {
				return fmt.Errorf("%w on %s", err, display(m, o.GetName()))
			}
		} else if err := w.met(ctx, c, m, o, test); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "%s condition met\n", display(m, o.GetName()))
	}
	return errors.Join(missing...)
}

func (w *Wait) choice(c *conn) choice {
	return choice{w.Args, w.Selector, w.All, w.AllNamespaces, c.namespace}
}

// once looks one time: with a time-out of 0 there is nothing to wait for.
func (w *Wait) once(ctx context.Context, c *conn, s *Streams, kind string, test func(*unstructured.Unstructured) (bool, error)) error {
	objs, errs, err := c.selected(ctx, w.choice(c))
	if err != nil {
		return err
	}
	switch {
	case kind == "delete":
		errs = nil
	case len(objs) == 0 && len(errs) == 0:
		return errors.New("no matching resources found")
	}
	for _, o := range objs {
		ok := kind == "create"
		if test != nil {
			if ok, err = test(o.object); err != nil {
				return err
			}
		}
		if ok {
			fmt.Fprintf(s.Out, "%s condition met\n", display(o.mapping, o.object.GetName()))
			continue
		}
		errs = append(errs, fmt.Errorf("%s is not so now on %s", w.For, display(o.mapping, o.object.GetName())))
	}
	return errors.Join(errs...)
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
func (w *Wait) created(ctx context.Context, c *conn, s *Streams) error {
	for {
		objs, missing, err := c.selected(ctx, w.choice(c))
		if err != nil {
			return waitError(ctx, err)
		}
		if len(missing) == 0 && len(objs) > 0 {
			for _, o := range objs {
				fmt.Fprintf(s.Out, "%s condition met\n", display(o.mapping, o.object.GetName()))
			}
			return nil
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
	case "delete", "create":
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
		if arg == "" {
			return nil, errors.New("--for=jsonpath= needs a path, for example --for=jsonpath={.status.phase}=Running")
		}
		expr, want, ok := strings.Cut(arg, "}=")
		if ok {
			expr += "}"
		} else {
			expr, want, ok = strings.Cut(arg, "=")
		}
		p, err := printer.ParsePath(strings.Trim(expr, "'"))
		if err != nil {
			return nil, fmt.Errorf("--for: %w", err)
		}
		return func(o *unstructured.Unstructured) (bool, error) {
			got, err := printer.Field(p, o.Object)
			if err != nil {
				return false, err
			}
			return got != "" && (!ok || got == want), nil
		}, nil
	}
	return nil, fmt.Errorf("--for=%s is nothing to wait for; use condition=NAME, jsonpath=PATH=VALUE, create or delete", kind)
}

// hasCondition checks status.conditions; a condition of an older generation does not count.
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
