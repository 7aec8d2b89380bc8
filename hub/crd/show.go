package crd

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/jsonpath"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// ageColumn is what a version shows that declares no columns.
var ageColumn = []apiextensionsv1.CustomResourceColumnDefinition{{
	Name: "Age", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"], JSONPath: ".metadata.creationTimestamp",
}}

// columns returns what renders objects with the columns that a version declares, after their names.
func columns(declared []apiextensionsv1.CustomResourceColumnDefinition) func(context.Context, []kube.Object, *metav1.TableOptions) (*metav1.Table, error) {
	if len(declared) == 0 {
		declared = ageColumn
	}
	return func(_ context.Context, objs []kube.Object, opts *metav1.TableOptions) (*metav1.Table, error) {
		t := &metav1.Table{Rows: make([]metav1.TableRow, len(objs))}
		if opts == nil || !opts.NoHeaders {
			t.ColumnDefinitions = headers(declared)
		}
		paths := make([]*jsonpath.JSONPath, len(declared)) // they have a state, so they are not shared between requests
		for i, c := range declared {
			p := jsonpath.New(c.Name).AllowMissingKeys(true)
			if err := p.Parse("{" + c.JSONPath + "}"); err == nil {
				paths[i] = p
			}
		}
		for i, obj := range objs {
			cells := make([]any, 1, len(declared)+1)
			cells[0] = obj.GetName()
			for j, c := range declared {
				cells = append(cells, cell(paths[j], c.Type, obj.(*unstructured.Unstructured).Object))
			}
			t.Rows[i] = metav1.TableRow{Cells: cells, Object: runtime.RawExtension{Object: obj}}
		}
		return t, nil
	}
}

func headers(declared []apiextensionsv1.CustomResourceColumnDefinition) []metav1.TableColumnDefinition {
	out := []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}}
	for _, c := range declared {
		about := c.Description
		if about == "" {
			about = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		out = append(out, metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: about, Priority: c.Priority})
	}
	return out
}

// cell returns the first value at a path in the form of the column's type; nil when there is none, or when it is of another type.
func cell(path *jsonpath.JSONPath, kind string, obj map[string]any) any {
	value, ok := first(path, obj)
	if !ok {
		return nil
	}
	switch kind {
	case "string":
		var b bytes.Buffer
		if path.PrintResults(&b, []reflect.Value{reflect.ValueOf(value)}) != nil {
			return nil
		}
		return b.String()
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		if text, ok := value.(string); ok {
			return age(text)
		}
	}
	return nil
}

// age returns how long ago a time was, as kubectl shows it.
func age(text string) string {
	var at metav1.Time
	if err := at.UnmarshalQueryParameter(text); err != nil {
		return "<invalid>"
	}
	return metatable.ConvertToHumanReadableDateType(at)
}

// first returns the first value at a path; ok is false when there is none, or the path is none (nil).
func first(path *jsonpath.JSONPath, obj map[string]any) (value any, ok bool) {
	if path == nil {
		return nil, false
	}
	results, err := path.FindResults(obj)
	if err != nil || len(results) == 0 || len(results[0]) == 0 || !results[0][0].IsValid() || !results[0][0].CanInterface() {
		return nil, false
	}
	value = results[0][0].Interface()
	return value, value != nil
}

// selectFields declares the field selectors of a version.
func selectFields(k *resource.Kind, declared []apiextensionsv1.SelectableField) {
	labels := make([]string, len(declared))
	for i, f := range declared {
		labels[i] = strings.TrimPrefix(f.JSONPath, ".")
	}
	k.SelectFields(func(obj kube.Object, into fields.Set) {
		for i, label := range labels {
			into[label] = ""
			path := jsonpath.New(label).AllowMissingKeys(true)
			if path.Parse("{"+declared[i].JSONPath+"}") != nil {
				continue
			}
			if v, ok := first(path, obj.(*unstructured.Unstructured).Object); ok {
				into[label] = fmt.Sprint(v)
			}
		}
	}, labels...)
}
