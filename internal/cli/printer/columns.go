package printer

import (
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/util/jsonpath"
)

// columns prints -o custom-columns=HEADER:JSONPATH,...
type columns struct {
	headers   []string
	paths     []*jsonpath.JSONPath
	noHeaders bool
}

func newColumns(spec string, noHeaders bool) (*columns, error) {
	c := &columns{noHeaders: noHeaders}
	for part := range strings.SplitSeq(spec, ",") {
		header, expr, ok := strings.Cut(part, ":")
		if !ok || header == "" || expr == "" {
			return nil, fmt.Errorf("%q is not HEADER:JSONPATH", part)
		}
		p, err := ParsePath(expr)
		if err != nil {
			return nil, err
		}
		c.headers, c.paths = append(c.headers, header), append(c.paths, p)
	}
	return c, nil
}

// PrintObj implements printers.ResourcePrinter.
func (c *columns) PrintObj(obj runtime.Object, w io.Writer) error {
	out := printers.GetNewTabWriter(w)
	if !c.noHeaders {
		fmt.Fprintln(out, strings.Join(c.headers, "\t"))
	}
	row := func(content map[string]any) error {
		cells := make([]string, len(c.paths))
		for i, p := range c.paths {
			v, err := Field(p, content)
			if err != nil {
				return err
			}
			if v == "" {
				v = "<none>"
			}
			cells[i] = v
		}
		fmt.Fprintln(out, strings.Join(cells, "\t"))
		return nil
	}
	switch o := obj.(type) {
	case *unstructured.UnstructuredList:
		for i := range o.Items {
			if err := row(o.Items[i].Object); err != nil {
				return err
			}
		}
	case *unstructured.Unstructured:
		if err := row(o.Object); err != nil {
			return err
		}
	default:
		return fmt.Errorf("custom-columns cannot print a %T", obj)
	}
	return out.Flush()
}
