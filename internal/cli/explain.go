package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/printers"
)

// APIResources lists what the server serves.
type APIResources struct {
	Cluster
	Namespaced *bool  `negatable:"" help:"Only types that live in namespaces, or (--no-namespaced) only those that do not."`
	Group      string `name:"api-group" help:"Only of this API group." placeholder:"GROUP"`
	Output     string `short:"o" enum:",wide,name" default:"" help:"wide adds verbs and categories, name prints names only." placeholder:"FORMAT"`
	NoHeaders  bool   `help:"Without the header line."`
}

// Run prints one line a type.
func (a *APIResources) Run(ctx context.Context, s *Streams) error {
	c, err := a.connect(ctx, s)
	if err != nil {
		return err
	}
	lists, err := c.discovery.ServerPreferredResources()
	if err != nil {
		return err
	}
	out := printers.GetNewTabWriter(s.Out)
	if !a.NoHeaders && a.Output != "name" {
		fmt.Fprint(out, "NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND")
		if a.Output == "wide" {
			fmt.Fprint(out, "\tVERBS\tCATEGORIES")
		}
		fmt.Fprintln(out)
	}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return err
		}
		if a.Group != "" && gv.Group != a.Group {
			continue
		}
		slices.SortFunc(l.APIResources, func(x, y metav1.APIResource) int { return strings.Compare(x.Name, y.Name) })
		for _, r := range l.APIResources {
			if len(r.Verbs) == 0 || strings.Contains(r.Name, "/") || a.Namespaced != nil && *a.Namespaced != r.Namespaced {
				continue
			}
			name := r.Name
			if gv.Group != "" && a.Output == "name" {
				name += "." + gv.Group
			}
			if a.Output == "name" {
				fmt.Fprintln(out, name)
				continue
			}
			fmt.Fprintf(out, "%s\t%s\t%s\t%v\t%s", name, strings.Join(r.ShortNames, ","), l.GroupVersion, r.Namespaced, r.Kind)
			if a.Output == "wide" {
				fmt.Fprintf(out, "\t%s\t%s", strings.Join(r.Verbs, ","), strings.Join(r.Categories, ","))
			}
			fmt.Fprintln(out)
		}
	}
	return out.Flush()
}

// Explain documents the fields of a type.
type Explain struct {
	Cluster
	Path      string `arg:"" name:"type.field" help:"A type, or a field of it: pods, deployment.spec.strategy."`
	Recursive bool   `help:"All fields below, without their texts."`
}

// openAPI is what Run reads of a group version's OpenAPI v3 document.
type openAPI struct {
	Components struct {
		Schemas map[string]*openAPISchema `json:"schemas"`
	} `json:"components"`
}

type openAPISchema struct {
	Description string                    `json:"description"`
	Type        string                    `json:"type"`
	Format      string                    `json:"format"`
	Ref         string                    `json:"$ref"`
	AllOf       []*openAPISchema          `json:"allOf"`
	Items       *openAPISchema            `json:"items"`
	Properties  map[string]*openAPISchema `json:"properties"`
	Additional  json.RawMessage           `json:"additionalProperties"`
	Required    []string                  `json:"required"`
	GVKs        []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
}

// Run walks the server's own schema.
func (e *Explain) Run(ctx context.Context, s *Streams) error {
	c, err := e.connect(ctx, s)
	if err != nil {
		return err
	}
	typ, rest, _ := strings.Cut(e.Path, ".")
	ms, err := c.mappings(typ)
	if err != nil {
		return err
	}
	gvk := ms[0].GroupVersionKind
	p := "/openapi/v3/apis/" + gvk.Group + "/" + gvk.Version
	if gvk.Group == "" {
		p = "/openapi/v3/api/" + gvk.Version
	}
	body, err := c.raw(ctx, p, nil, "application/json")
	if err != nil {
		return err
	}
	defer body.Close()
	var doc openAPI
	if err := json.NewDecoder(body).Decode(&doc); err != nil {
		return fmt.Errorf("the server's OpenAPI document: %w", err)
	}
	node := doc.find(gvk)
	if node == nil {
		return fmt.Errorf("the server documents no %s", gvk.Kind)
	}
	head := fmt.Sprintf("KIND:       %s\nVERSION:    %s\n\n", gvk.Kind, gvk.GroupVersion())
	if rest != "" {
		at := typ
		var field *openAPISchema
		for name := range strings.SplitSeq(rest, ".") {
			field = doc.fields(node)[name]
			if field == nil {
				return fmt.Errorf("%s has no field %q; it has %s", at, name, strings.Join(sortedKeys(doc.fields(node)), ", "))
			}
			at += "." + name
			node = field
		}
		last := rest[strings.LastIndex(rest, ".")+1:]
		head += fmt.Sprintf("FIELD: %s <%s>\n\n", last, doc.typeOf(field))
	}
	fmt.Fprint(s.Out, head)
	fmt.Fprintln(s.Out, "DESCRIPTION:")
	wrap(s.Out, "    ", doc.description(node))
	fields := doc.fields(node)
	if len(fields) == 0 {
		return nil
	}
	fmt.Fprintln(s.Out, "\nFIELDS:")
	doc.print(s.Out, node, "  ", e.Recursive, 0)
	return nil
}

func (d *openAPI) find(gvk schema.GroupVersionKind) *openAPISchema {
	for _, s := range d.Components.Schemas {
		if slices.Contains(s.GVKs, gvk) {
			return s
		}
	}
	return nil
}

// resolve follows references, and the one-element allOf that carries a description beside a reference.
func (d *openAPI) resolve(s *openAPISchema) *openAPISchema {
	for s != nil {
		switch {
		case s.Ref != "":
			s = d.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]]
		case len(s.AllOf) == 1:
			s = s.AllOf[0]
		default:
			return s
		}
	}
	return nil
}

// element is what a list or map holds.
func (d *openAPI) element(s *openAPISchema) *openAPISchema {
	if s.Items != nil {
		return d.resolve(s.Items)
	}
	var add openAPISchema
	if len(s.Additional) > 1 && s.Additional[0] == '{' && json.Unmarshal(s.Additional, &add) == nil {
		return d.resolve(&add)
	}
	return nil
}

func (d *openAPI) fields(s *openAPISchema) map[string]*openAPISchema {
	s = d.resolve(s)
	for s != nil && len(s.Properties) == 0 {
		next := d.element(s)
		if next == nil {
			return nil
		}
		s = next
	}
	if s == nil {
		return nil
	}
	return s.Properties
}

func (d *openAPI) description(s *openAPISchema) string {
	if s.Description != "" {
		return s.Description
	}
	if r := d.resolve(s); r != nil {
		return r.Description
	}
	return ""
}

func (d *openAPI) typeOf(s *openAPISchema) string {
	name := func(s *openAPISchema) string {
		for s != nil && s.Ref == "" && len(s.AllOf) == 1 {
			s = s.AllOf[0]
		}
		if s != nil && s.Ref != "" {
			if r := d.resolve(s); r != nil && r.Type == "string" {
				return "string" // Time, Quantity, IntOrString
			}
			return s.Ref[strings.LastIndex(s.Ref, ".")+1:]
		}
		if s == nil || s.Type == "" {
			return "Object"
		}
		return s.Type
	}
	switch {
	case s.Type == "array":
		return "[]" + name(s.Items)
	case len(s.Additional) > 1:
		var add openAPISchema
		if json.Unmarshal(s.Additional, &add) == nil {
			return "map[string]" + name(&add)
		}
	}
	return name(s)
}

func (d *openAPI) print(w io.Writer, s *openAPISchema, indent string, recursive bool, depth int) {
	const deepest = 12 // a schema that contains itself
	r := d.resolve(s)
	for r != nil && len(r.Properties) == 0 && d.element(r) != nil {
		r = d.element(r)
	}
	if r == nil || depth > deepest {
		return
	}
	for _, k := range sortedKeys(r.Properties) {
		f := r.Properties[k]
		required := ""
		if slices.Contains(r.Required, k) {
			required = " -required-"
		}
		fmt.Fprintf(w, "%s%s\t<%s>%s\n", indent, k, d.typeOf(f), required)
		if recursive {
			d.print(w, f, indent+"  ", true, depth+1)
			continue
		}
		wrap(w, indent+"  ", d.description(f))
		fmt.Fprintln(w)
	}
}

func wrap(w io.Writer, indent, text string) {
	const width = 80
	for para := range strings.SplitSeq(text, "\n") {
		line := ""
		for _, word := range strings.Fields(para) {
			if line != "" && len(indent)+len(line)+1+len(word) > width {
				fmt.Fprintf(w, "%s%s\n", indent, line)
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += word
		}
		if line != "" {
			fmt.Fprintf(w, "%s%s\n", indent, line)
		}
	}
}
