package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Describe shows objects in full, with what happened to them.
type Describe struct {
	Cluster
	Args          []string `arg:"" name:"what" help:"TYPE, TYPE NAME... or TYPE/NAME..."`
	Selector      string   `short:"l" help:"All objects with these labels." placeholder:"SELECTOR"`
	AllNamespaces bool     `short:"A" help:"Of all namespaces."`
	ShowEvents    bool     `default:"true" negatable:"" help:"With the events of each object."`
}

// Run prints one block an object.
func (d *Describe) Run(ctx context.Context, s *Streams) error {
	c, err := d.connect(ctx, s)
	if err != nil {
		return err
	}
	everything := len(d.Args) == 1 && !strings.Contains(d.Args[0], "/") && d.Selector == ""
	objs, missing, err := c.selected(ctx, choice{d.Args, d.Selector, everything, d.AllNamespaces, c.namespace})
	if err != nil {
		return err
	}
	if len(objs) == 0 && len(missing) == 0 {
		fmt.Fprintln(s.Err, "No resources found")
		return nil
	}
	for i, o := range objs {
		if i > 0 {
			fmt.Fprint(s.Out, "\n\n")
		}
		if err := d.one(ctx, c, s.Out, o.object); err != nil {
			return err
		}
	}
	return errors.Join(missing...)
}

func (d *Describe) one(ctx context.Context, c *conn, w io.Writer, o *unstructured.Unstructured) error {
	ann := o.GetAnnotations()
	delete(ann, lastApplied) // it repeats the object
	o.SetAnnotations(ann)
	out := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(out, "Name:\t%s\n", o.GetName())
	if o.GetNamespace() != "" {
		fmt.Fprintf(out, "Namespace:\t%s\n", o.GetNamespace())
	}
	if err := c.describeBody(ctx, out, o, ann); err != nil {
		return err
	}
	if !d.ShowEvents {
		return out.Flush()
	}
	events, err := c.events(ctx, o.GetNamespace(), "involvedObject.uid="+string(o.GetUID()))
	if err != nil {
		return err
	}
	if len(events) == 0 {
		fmt.Fprintln(out, "Events:\t<none>")
		return out.Flush()
	}
	fmt.Fprintln(out, "Events:")
	if err := out.Flush(); err != nil {
		return err
	}
	out = tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(out, "  Type\tReason\tAge\tFrom\tMessage")
	for _, e := range events {
		from := e.Source.Component
		if from == "" {
			from = e.ReportingController
		}
		fmt.Fprintf(out, "  %s\t%s\t%s\t%s\t%s\n", e.Type, e.Reason, eventAge(&e), from, strings.TrimSpace(e.Message))
	}
	return out.Flush()
}

// describeBody prints what comes between an object's name and its events.
func (c *conn) describeBody(ctx context.Context, out *tabwriter.Writer, o *unstructured.Unstructured, ann map[string]string) error {
	fmt.Fprintf(out, "Kind:\t%s (%s)\n", o.GetKind(), o.GetAPIVersion())
	fmt.Fprintf(out, "Created:\t%s\n", since(o.GetCreationTimestamp().Time))
	if t := o.GetDeletionTimestamp(); t != nil {
		fmt.Fprintf(out, "Deleted:\t%s, finalizers: %s\n", since(t.Time), orNone(strings.Join(o.GetFinalizers(), ", ")))
	}
	if owner := metav1.GetControllerOf(o); owner != nil {
		fmt.Fprintf(out, "Controlled By:\t%s/%s\n", owner.Kind, owner.Name)
	}
	printMap(out, "Labels", o.GetLabels())
	printMap(out, "Annotations", ann)
	if done, err := c.describeKind(ctx, out, o); done || err != nil {
		return err
	}
	if o.GetKind() == "Secret" {
		hideSecret(o)
	}
	for _, key := range sortedKeys(o.Object) {
		if key != "metadata" && key != "apiVersion" && key != "kind" {
			printValue(out, "", title(key), o.Object[key])
		}
	}
	return nil
}

func printMap(w io.Writer, name string, m map[string]string) {
	if len(m) == 0 {
		fmt.Fprintf(w, "%s:\t<none>\n", name)
		return
	}
	label := name + ":"
	for _, k := range sortedKeys(m) {
		fmt.Fprintf(w, "%s\t%s=%s\n", label, k, m[k])
		label = ""
	}
}

// hideSecret leaves the size of each value.
func hideSecret(o *unstructured.Unstructured) {
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	for k, v := range data {
		data[k] = fmt.Sprintf("%d bytes", len(v)/4*3-strings.Count(v, "="))
	}
	_ = unstructured.SetNestedStringMap(o.Object, data, "data") // it was a map of strings a moment ago
}

// userKeys are the fields whose keys are data that somebody chose, not names of fields.
var userKeys = map[string]bool{
	"Data": true, "Binary Data": true, "Labels": true, "Annotations": true, "Match Labels": true, "Selector": true,
	"Node Selector": true, "Limits": true, "Requests": true, "Capacity": true, "Allocatable": true,
}

// printValue prints a field and what is below it, indented.
func printValue(w io.Writer, indent, name string, v any) {
	switch v := v.(type) {
	case nil:
	case map[string]any:
		if len(v) == 0 {
			fmt.Fprintf(w, "%s%s:\t{}\n", indent, name)
			return
		}
		fmt.Fprintf(w, "%s%s:\n", indent, name)
		for _, k := range sortedKeys(v) {
			label := title(k)
			if userKeys[name] && k != "matchLabels" && k != "matchExpressions" {
				label = k
			}
			printValue(w, indent+"  ", label, v[k])
		}
	case []any:
		if allScalars(v) {
			parts := make([]string, len(v))
			for i := range v {
				parts[i] = fmt.Sprint(v[i])
			}
			fmt.Fprintf(w, "%s%s:\t%s\n", indent, name, strings.Join(parts, " "))
			return
		}
		fmt.Fprintf(w, "%s%s:\n", indent, name)
		for _, item := range v {
			m, ok := item.(map[string]any)
			if !ok {
				b, _ := json.Marshal(item)
				fmt.Fprintf(w, "%s  -\t%s\n", indent, b)
				continue
			}
			printItem(w, indent+"  ", m)
		}
	case string:
		lines := strings.Split(strings.TrimRight(v, "\n"), "\n")
		fmt.Fprintf(w, "%s%s:\t%s\n", indent, name, lines[0])
		for _, l := range lines[1:] {
			fmt.Fprintf(w, "%s\t%s\n", indent, l)
		}
	default:
		fmt.Fprintf(w, "%s%s:\t%v\n", indent, name, v)
	}
}

// printItem prints a member of a list under its name or type, as people look for it.
func printItem(w io.Writer, indent string, m map[string]any) {
	label := "-"
	for _, k := range []string{"name", "type", "key", "ip"} {
		if s, ok := m[k].(string); ok {
			label = s
			m = withoutKey(m, k)
			break
		}
	}
	fmt.Fprintf(w, "%s%s:\n", indent, label)
	for _, k := range sortedKeys(m) {
		printValue(w, indent+"  ", title(k), m[k])
	}
}

func withoutKey(m map[string]any, key string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}

func allScalars(l []any) bool {
	for _, v := range l {
		switch v.(type) {
		case map[string]any, []any:
			return false
		}
	}
	return true
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// title turns containerStatuses into "Container Statuses"; names with dots or dashes are data and stay as they are.
func title(key string) string {
	if strings.ContainsAny(key, "./-_") {
		return key
	}
	var b strings.Builder
	for i, r := range key {
		upper := r >= 'A' && r <= 'Z'
		if i == 0 {
			b.WriteString(strings.ToUpper(string(r)))
			continue
		}
		if upper && key[i-1] >= 'a' && key[i-1] <= 'z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}
