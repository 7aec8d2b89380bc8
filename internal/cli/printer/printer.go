// Package printer prints and sorts objects: the -o formats other than tables, and JSONPaths as users write them.
package printer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/util/jsonpath"
)

// For returns the printer of an -o format other than a table.
func For(format string, noHeaders bool) (printers.ResourcePrinter, error) {
	kind, arg, hasArg := strings.Cut(format, "=")
	needs := func(p printers.ResourcePrinter, err error) (printers.ResourcePrinter, error) {
		if !hasArg || arg == "" {
			return nil, fmt.Errorf("-o %s needs its template, as in -o %s=TEMPLATE", kind, kind)
		}
		if err != nil {
			return nil, fmt.Errorf("-o %s: %w", format, err)
		}
		return p, nil
	}
	switch kind {
	case "json":
		return &printers.JSONPrinter{}, nil
	case "yaml":
		return &printers.YAMLPrinter{}, nil
	case "name":
		return &printers.NamePrinter{}, nil
	case "jsonpath":
		p, err := printers.NewJSONPathPrinter(relaxed(arg))
		if err == nil {
			p.AllowMissingKeys(true)
		}
		return needs(templatePrinter{p}, err)
	case "go-template":
		p, err := printers.NewGoTemplatePrinter([]byte(arg))
		return needs(templatePrinter{p}, err)
	case "custom-columns":
		p, err := newColumns(arg, noHeaders)
		return needs(p, err)
	}
	return nil, fmt.Errorf("-o %q is no output format; use wide, yaml, json, name, jsonpath=TEMPLATE, go-template=TEMPLATE or custom-columns=SPEC", format)
}

// templatePrinter reports why a template failed, without the object that it failed on.
type templatePrinter struct{ printers.ResourcePrinter }

// PrintObj implements printers.ResourcePrinter.
func (p templatePrinter) PrintObj(obj runtime.Object, w io.Writer) error {
	var buf bytes.Buffer
	if err := p.ResourcePrinter.PrintObj(obj, &buf); err != nil {
		reason, _, _ := strings.Cut(err.Error(), ". Printing more information")
		return errors.New(reason)
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// relaxed accepts .metadata.name and metadata.name for {.metadata.name}.
func relaxed(expr string) string {
	if expr == "" || strings.Contains(expr, "{") {
		return expr
	}
	return "{." + strings.TrimPrefix(expr, ".") + "}"
}

// Field evaluates a JSONPath on an object; what is not there is the empty string.
func Field(p *jsonpath.JSONPath, obj any) (string, error) {
	results, err := p.FindResults(obj)
	if err != nil {
		return "", err
	}
	var vals []string
	for _, r := range results {
		for _, v := range r {
			vals = append(vals, fmt.Sprint(v.Interface()))
		}
	}
	return strings.Join(vals, ","), nil
}

// ParsePath parses a JSONPath, with braces or without; a field that is missing is no error.
func ParsePath(expr string) (*jsonpath.JSONPath, error) {
	expr = relaxed(expr)
	p := jsonpath.New("field").AllowMissingKeys(true)
	if err := p.Parse(expr); err != nil {
		return nil, fmt.Errorf("JSONPath %s: %w", expr, err)
	}
	return p, nil
}

// SortObjects sorts by a JSONPath; empty leaves the order.
func SortObjects(items []unstructured.Unstructured, by string) error {
	if by == "" {
		return nil
	}
	keys, err := sortKeys(by, len(items), func(i int) any { return items[i].Object })
	if err != nil {
		return err
	}
	sort.Stable(byKey{keys, func(i, j int) { items[i], items[j] = items[j], items[i] }})
	return nil
}

// SortTable is SortObjects for the rows of a table, by the objects that the server sent with them.
func SortTable(t *metav1.Table, by string) error {
	if by == "" {
		return nil
	}
	keys, err := sortKeys(by, len(t.Rows), func(i int) any {
		if u, ok := t.Rows[i].Object.Object.(*unstructured.Unstructured); ok {
			return u.Object
		}
		return map[string]any{}
	})
	if err != nil {
		return err
	}
	sort.Stable(byKey{keys, func(i, j int) { t.Rows[i], t.Rows[j] = t.Rows[j], t.Rows[i] }})
	return nil
}

func sortKeys(by string, n int, at func(int) any) ([]string, error) {
	p, err := ParsePath(by)
	if err != nil {
		return nil, err
	}
	keys := make([]string, n)
	for i := range keys {
		k, err := Field(p, at(i))
		if err != nil {
			return nil, fmt.Errorf("--sort-by %s: %w", by, err)
		}
		if isDigits(k) {
			k = fmt.Sprintf("%020s", k) // numbers by value
		}
		keys[i] = k
	}
	return keys, nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// byKey sorts two slices in the same order.
type byKey struct {
	keys []string
	swap func(i, j int)
}

func (b byKey) Len() int           { return len(b.keys) }
func (b byKey) Less(i, j int) bool { return b.keys[i] < b.keys[j] }
func (b byKey) Swap(i, j int) {
	b.keys[i], b.keys[j] = b.keys[j], b.keys[i]
	b.swap(i, j)
}
