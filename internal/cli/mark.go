package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// marks is what Label and Annotate share.
type marks struct {
	Cluster
	Args          []string `arg:"" name:"what" help:"TYPE NAME..., or TYPE/NAME..., then KEY=VALUE to set and KEY- to remove."`
	Overwrite     bool     `help:"Change what is there already."`
	Selector      string   `short:"l" help:"All objects with these labels." placeholder:"SELECTOR"`
	All           bool     `help:"All objects of the type in the namespace."`
	AllNamespaces bool     `short:"A" help:"Of all namespaces (with -l or --all)."`
}

// Label sets and removes labels.
type Label struct{ marks }

// Run patches each object.
func (l *Label) Run(ctx context.Context, s *Streams) error {
	return l.mark(ctx, s, "labels", "labeled", func(o *unstructured.Unstructured) map[string]string { return o.GetLabels() })
}

// Annotate sets and removes annotations.
type Annotate struct{ marks }

// Run patches each object.
func (a *Annotate) Run(ctx context.Context, s *Streams) error {
	return a.mark(ctx, s, "annotations", "annotated", func(o *unstructured.Unstructured) map[string]string { return o.GetAnnotations() })
}

func (m marks) mark(ctx context.Context, s *Streams, field, verb string, have func(*unstructured.Unstructured) map[string]string) error {
	what, set, remove, err := splitMarks(m.Args)
	if err != nil {
		return err
	}
	c, err := m.connect(ctx, s)
	if err != nil {
		return err
	}
	objs, errs, err := c.selected(ctx, choice{what, m.Selector, m.All, m.AllNamespaces, c.namespace})
	if err != nil {
		return err
	}
	for _, each := range objs {
		o := each.object
		name := display(each.mapping, o.GetName())
		now := have(o)
		changes := map[string]any{}
		for k, v := range set {
			old, exists := now[k]
			if exists && old != v && !m.Overwrite {
				return fmt.Errorf("%s has %s=%s already; use --overwrite to change it", name, k, old)
			}
			if !exists || old != v {
				changes[k] = v
			}
		}
		for _, k := range remove {
			if _, exists := now[k]; exists {
				changes[k] = nil
			} else {
				fmt.Fprintf(s.Err, "%s has no %s\n", name, k)
			}
		}
		if len(changes) == 0 {
			fmt.Fprintf(s.Out, "%s not %s\n", name, verb)
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{field: changes}})
		if err != nil {
			return err
		}
		if _, err := c.resource(each.mapping, o.GetNamespace()).Patch(ctx, o.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "%s %s\n", name, verb)
	}
	return errors.Join(errs...)
}

// splitMarks separates the objects from KEY=VALUE and KEY-.
func splitMarks(args []string) (what []string, set map[string]string, remove []string, err error) {
	set = map[string]string{}
	for _, a := range args {
		k, v, isSet := strings.Cut(a, "=")
		switch {
		case isSet && k != "":
			set[k] = v
		case strings.HasSuffix(a, "-") && len(a) > 1 && len(what) > 0:
			remove = append(remove, strings.TrimSuffix(a, "-"))
		default:
			what = append(what, a)
		}
	}
	for _, k := range remove {
		if _, both := set[k]; both {
			return nil, nil, nil, fmt.Errorf("%s= sets what %s- removes: give one of the two", k, k)
		}
	}
	if len(set)+len(remove) == 0 {
		return nil, nil, nil, errors.New("name what to set (KEY=VALUE) or to remove (KEY-)")
	}
	return what, set, remove, nil
}

// Taint sets and removes taints of nodes.
type Taint struct {
	Cluster
	Args      []string `arg:"" name:"what" help:"node NAME..., then KEY[=VALUE]:EFFECT to set, and KEY[:EFFECT]- to remove. Effects: NoSchedule, PreferNoSchedule, NoExecute."`
	Overwrite bool     `help:"Change a taint that is there already."`
	All       bool     `help:"All nodes."`
	Selector  string   `short:"l" help:"All nodes with these labels." placeholder:"SELECTOR"`
}

// ParseTaint reads KEY[=VALUE]:EFFECT.
func ParseTaint(text string) (corev1.Taint, error) {
	kv, effect, ok := strings.Cut(text, ":")
	key, value, _ := strings.Cut(kv, "=")
	if !ok || key == "" {
		return corev1.Taint{}, fmt.Errorf("%q is not KEY[=VALUE]:EFFECT", text)
	}
	t := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
	if !slices.Contains([]corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}, t.Effect) {
		return corev1.Taint{}, fmt.Errorf("%q is no taint effect; use NoSchedule, PreferNoSchedule or NoExecute", effect)
	}
	if bad := validation.IsQualifiedName(key); len(bad) > 0 {
		return corev1.Taint{}, fmt.Errorf("%q is no key of a taint: %s", key, bad[0])
	}
	if bad := validation.IsValidLabelValue(value); len(bad) > 0 {
		return corev1.Taint{}, fmt.Errorf("%q is no value of a taint: %s", value, bad[0])
	}
	return t, nil
}

// Run changes spec.taints, against the version that was read.
func (t *Taint) Run(ctx context.Context, s *Streams) error {
	var what []string
	var set []corev1.Taint
	var remove []corev1.Taint
	for _, a := range t.Args {
		body, removing := strings.CutSuffix(a, "-")
		hasEffect := strings.Contains(body, ":")
		if strings.Contains(body, "=") && !hasEffect {
			return fmt.Errorf("%q has no effect; write KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute", a)
		}
		if !hasEffect && !removing || len(what) == 0 {
			what = append(what, a)
			continue
		}
		if removing && !hasEffect {
			remove = append(remove, corev1.Taint{Key: body})
			continue
		}
		taint, err := ParseTaint(body)
		if err != nil {
			return err
		}
		if removing {
			remove = append(remove, taint)
		} else {
			set = append(set, taint)
		}
	}
	if len(set)+len(remove) == 0 {
		return errors.New("name the taint to set (KEY=VALUE:EFFECT) or to remove (KEY:EFFECT-)")
	}
	c, err := t.connect(ctx, s)
	if err != nil {
		return err
	}
	objs, errs, err := c.selected(ctx, choice{args: what, selector: t.Selector, all: t.All, namespace: c.namespace})
	if err != nil {
		return err
	}
	for _, o := range objs {
		if o.mapping.GroupVersionKind.Kind != "Node" {
			return fmt.Errorf("%s cannot be tainted, only nodes can", display(o.mapping, o.object.GetName()))
		}
		if err := t.one(ctx, c, s, o.mapping, o.object, set, remove); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func (t *Taint) one(ctx context.Context, c *conn, s *Streams, m *meta.RESTMapping, o *unstructured.Unstructured, set, remove []corev1.Taint) error {
	var node corev1.Node
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &node); err != nil {
		return err
	}
	taints := node.Spec.Taints
	for _, r := range remove {
		before := len(taints)
		taints = slices.DeleteFunc(taints, func(x corev1.Taint) bool { return x.Key == r.Key && (r.Effect == "" || x.Effect == r.Effect) })
		if len(taints) == before {
			return fmt.Errorf("node %s has no taint %q", node.Name, r.Key)
		}
	}
	for _, n := range set {
		i := slices.IndexFunc(taints, func(x corev1.Taint) bool { return x.MatchTaint(&n) })
		switch {
		case i < 0:
			taints = append(taints, n)
		case taints[i].Value != n.Value && !t.Overwrite:
			return fmt.Errorf("node %s has the taint %s already; use --overwrite to change it", node.Name, taints[i].ToString())
		default:
			taints[i] = n
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": taints},
	})
	if err != nil {
		return err
	}
	if _, err := c.resource(m, "").Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}); err != nil {
		return err
	}
	verb := "tainted"
	if len(set) == 0 {
		verb = "untainted"
	}
	fmt.Fprintf(s.Out, "%s %s\n", display(m, node.Name), verb)
	return nil
}
