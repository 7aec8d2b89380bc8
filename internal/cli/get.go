package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/liggitt/tabwriter"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/cli-runtime/pkg/printers"

	"petrel.dev/petrel/internal/cli/manifest"
	"petrel.dev/petrel/internal/cli/printer"
	"petrel.dev/petrel/internal/cli/screen"
)

// Get shows objects.
type Get struct {
	Cluster
	Args          []string `arg:"" optional:"" name:"what" help:"TYPE, TYPE NAME... or TYPE/NAME...; types may be comma-separated, and all means the usual ones."`
	Filename      []string `short:"f" help:"Show the objects of these files or directories (- is standard input)." placeholder:"FILE"`
	Recursive     bool     `short:"R" help:"With -f: directories with all that is below them."`
	Output        string   `short:"o" help:"wide, yaml, json, name, jsonpath=TEMPLATE, go-template=TEMPLATE or custom-columns=SPEC." placeholder:"FORMAT"`
	Selector      string   `short:"l" help:"Only objects with these labels, for example app=web,tier!=db." placeholder:"SELECTOR"`
	FieldSelector string   `help:"Only objects with these fields, for example spec.nodeName=pi1." placeholder:"SELECTOR"`
	AllNamespaces bool     `short:"A" help:"Of all namespaces."`
	Watch         bool     `short:"w" help:"Show, then follow changes: on a terminal in place, otherwise a line for each."`
	WatchOnly     bool     `help:"Follow changes without showing first."`
	NoHeaders     bool     `help:"Without the header line."`
	ShowLabels    bool     `help:"With a column of labels."`
	LabelColumns  []string `short:"L" help:"With a column for each of these labels." placeholder:"LABEL"`
	SortBy        string   `help:"Sort by this field, as a JSONPath: {.metadata.creationTimestamp}." placeholder:"JSONPATH"`
	IgnoreMissing bool     `name:"ignore-not-found" help:"A named object that does not exist is no error."`
	ChunkSize     int64    `default:"500" help:"Ask for long lists in pieces of this many objects; 0 asks for all at once." placeholder:"N"`
}

const tableAccept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// Run prints what was asked for.
func (g *Get) Run(ctx context.Context, s *Streams) error {
	c, err := g.connect(ctx, s)
	if err != nil {
		return err
	}
	ns := c.namespace
	if g.AllNamespaces {
		ns = ""
	}
	ts, err := g.what(c, s)
	if err != nil {
		return err
	}
	if g.Watch || g.WatchOnly {
		if len(ts) != 1 {
			return errors.New("--watch follows one resource type at a time")
		}
		if g.Watch && g.table() && screen.Movable(s.Out) {
			return g.live(ctx, c, s, ts[0], ns)
		}
		if g.SortBy != "" {
			fmt.Fprintln(s.Err, "Warning: with --watch --sort-by is for a terminal; here lines come in the order of the changes")
		}
		return g.watch(ctx, c, s, ts[0], ns)
	}
	if g.table() {
		return g.tables(ctx, c, s, ts, ns)
	}
	return g.objects(ctx, c, s, ts, ns)
}

func (g *Get) what(c *conn, s *Streams) ([]target, error) {
	if len(g.Filename) == 0 {
		ts, err := c.targets(g.Args)
		if err != nil {
			return nil, err
		}
		return ts, checkNames(ts, g.Selector, false, g.AllNamespaces)
	}
	docs, err := manifest.Read(s.In, g.Filename, g.Recursive)
	if err != nil {
		return nil, err
	}
	var ts []target
	for _, d := range docs {
		m, err := c.mappingOf(d)
		if err != nil {
			return nil, err
		}
		ts = append(ts, target{m, d.Object.GetName()})
	}
	return ts, nil
}

func (g *Get) table() bool { return g.Output == "" || g.Output == "wide" }

func (g *Get) query() url.Values {
	q := url.Values{}
	if g.Selector != "" {
		q.Set("labelSelector", g.Selector)
	}
	if g.FieldSelector != "" {
		q.Set("fieldSelector", g.FieldSelector)
	}
	return q
}

// fetch returns each page of a target: tables or lists, or the one object.
func (g *Get) fetch(ctx context.Context, c *conn, t target, ns, accept string, page func([]byte) error) error {
	q := g.query()
	if t.name != "" {
		q = url.Values{}
	} else if g.ChunkSize > 0 && g.SortBy == "" {
		q.Set("limit", fmt.Sprint(g.ChunkSize))
	}
	if strings.Contains(accept, "as=Table") {
		q.Set("includeObject", "Metadata")
		if g.SortBy != "" {
			q.Set("includeObject", "Object")
		}
	}
	for {
		body, err := c.raw(ctx, path(t.mapping, ns, t.name), q, accept)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil {
			return err
		}
		if err := page(b); err != nil {
			return err
		}
		var m struct {
			Metadata metav1.ListMeta `json:"metadata"`
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return err
		}
		if t.name != "" || m.Metadata.Continue == "" {
			return nil
		}
		q.Set("continue", m.Metadata.Continue)
	}
}

func (g *Get) tables(ctx context.Context, c *conn, s *Streams, ts []target, ns string) error {
	shown := 0
	several := false
	for _, t := range ts {
		several = several || t.mapping.GroupVersionKind != ts[0].mapping.GroupVersionKind
	}
	var last schema.GroupVersionKind
	var out *tabwriter.Writer
	var errs []error
	for _, t := range ts {
		header := !g.NoHeaders && t.mapping.GroupVersionKind != last
		if t.mapping.GroupVersionKind != last && out != nil {
			if err := out.Flush(); err != nil {
				return err
			}
			out = nil
		}
		err := g.fetch(ctx, c, t, ns, tableAccept, func(b []byte) error {
			table, err := decodeTable(b)
			if err != nil || len(table.Rows) == 0 {
				return err
			}
			if err := printer.SortTable(table, g.SortBy); err != nil {
				return err
			}
			if header && shown > 0 {
				fmt.Fprintln(s.Out)
			}
			shown += len(table.Rows)
			last = t.mapping.GroupVersionKind
			p := printers.NewTablePrinter(g.printOptions(t.mapping, ns, header, several))
			if header || out == nil { // a new writer for each table; pages of one share their widths
				out = printers.GetNewTabWriter(s.Out)
			}
			header = false
			if err := p.PrintObj(table, out); err != nil || t.name != "" { // single objects of a kind are one table
				return err
			}
			return out.Flush()
		})
		if g.IgnoreMissing && isNotFound(err) {
			continue
		}
		if err != nil {
			errs = append(errs, c.missing(ctx, t, ns, err))
		}
	}
	if out != nil {
		errs = append(errs, out.Flush())
	}
	if shown == 0 && errors.Join(errs...) == nil && !g.IgnoreMissing {
		if ns == "" || !namespaced(ts[0].mapping) {
			fmt.Fprintln(s.Err, "No resources found")
		} else {
			fmt.Fprintf(s.Err, "No resources found in %s namespace.\n", ns)
		}
	}
	return errors.Join(errs...)
}

func (g *Get) printOptions(m *meta.RESTMapping, ns string, header, withKind bool) printers.PrintOptions {
	return printers.PrintOptions{
		NoHeaders: !header, Wide: g.Output == "wide", ShowLabels: g.ShowLabels, ColumnLabels: g.LabelColumns,
		WithNamespace: ns == "" && namespaced(m), WithKind: withKind, Kind: m.GroupVersionKind.GroupKind(),
	}
}

// decodeTable reads a server's table, and its rows' objects as far as the server sent them.
func decodeTable(b []byte) (*metav1.Table, error) {
	var table metav1.Table
	// Not encoding/json, which makes a float of each number: a large one would be printed as 2e+09.
	if err := utiljson.Unmarshal(b, &table); err != nil {
		return nil, fmt.Errorf("the server's table: %w", err)
	}
	if table.Kind != "Table" {
		return nil, fmt.Errorf("the server sent %s where a Table was asked for", table.Kind)
	}
	for i := range table.Rows {
		raw := table.Rows[i].Object.Raw
		if len(raw) == 0 {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			return nil, fmt.Errorf("the server's table: %w", err)
		}
		table.Rows[i].Object.Object = u
	}
	return &table, nil
}

func (g *Get) objects(ctx context.Context, c *conn, s *Streams, ts []target, ns string) error {
	p, err := printer.For(g.Output, g.NoHeaders)
	if err != nil {
		return err
	}
	var items []unstructured.Unstructured
	single := len(ts) == 1 && ts[0].name != ""
	for _, t := range ts {
		err := g.fetch(ctx, c, t, ns, "application/json", func(b []byte) error {
			if t.name != "" {
				var o unstructured.Unstructured
				err := o.UnmarshalJSON(b)
				items = append(items, o)
				return err
			}
			var l unstructured.UnstructuredList
			err := l.UnmarshalJSON(b)
			items = append(items, l.Items...)
			return err
		})
		if g.IgnoreMissing && isNotFound(err) {
			continue
		}
		if err != nil {
			return c.missing(ctx, t, ns, err)
		}
	}
	if err := printer.SortObjects(items, g.SortBy); err != nil {
		return err
	}
	if single {
		if len(items) == 0 {
			return nil
		}
		return p.PrintObj(&items[0], s.Out)
	}
	if g.Output == "name" {
		for i := range items {
			if err := p.PrintObj(&items[i], s.Out); err != nil {
				return err
			}
		}
		return nil
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}}, Items: items}
	return p.PrintObj(list, s.Out)
}

// watch prints each change as a row (or an object) of its own, from one consistent point on.
func (g *Get) watch(ctx context.Context, c *conn, s *Streams, t target, ns string) error {
	accept := tableAccept
	var print func(runtime.Object, []byte) error
	header := !g.NoHeaders
	rows := func(table *metav1.Table) error {
		out := printers.GetNewTabWriter(s.Out)
		if len(table.Rows) > 0 {
			if err := printers.NewTablePrinter(g.printOptions(t.mapping, ns, header, false)).PrintObj(table, out); err != nil {
				return err
			}
			header = false
		}
		return out.Flush()
	}
	if g.table() {
		print = func(_ runtime.Object, b []byte) error {
			table, err := decodeTable(b)
			if err != nil {
				return err
			}
			return rows(table)
		}
	} else {
		accept = "application/json"
		p, err := printer.For(g.Output, g.NoHeaders)
		if err != nil {
			return err
		}
		print = func(_ runtime.Object, b []byte) error {
			var o unstructured.Unstructured
			if err := o.UnmarshalJSON(b); err != nil {
				return err
			}
			return p.PrintObj(&o, s.Out)
		}
	}

	q := g.query()
	if t.name != "" {
		q.Set("fieldSelector", "metadata.name="+t.name)
		t.name = ""
	}
	body, err := c.raw(ctx, path(t.mapping, ns, ""), q, accept)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(body)
	body.Close()
	if err != nil {
		return err
	}
	var first struct {
		Metadata metav1.ListMeta   `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(b, &first); err != nil {
		return err
	}
	if g.Watch {
		if g.table() {
			if err := print(nil, b); err != nil {
				return err
			}
		}
		for _, item := range first.Items {
			if err := print(nil, item); err != nil {
				return err
			}
		}
	}
	q.Set("watch", "true")
	q.Set("resourceVersion", first.Metadata.ResourceVersion)
	return c.follow(ctx, path(t.mapping, ns, ""), q, accept, func(_ string, obj json.RawMessage) (bool, error) {
		return false, print(nil, obj)
	})
}

// follow reads a watch until f returns done, the server ends it, or ctx ends.
func (c *conn) follow(ctx context.Context, path string, q url.Values, accept string, f func(event string, object json.RawMessage) (done bool, err error)) error {
	body, err := c.raw(ctx, path, q, accept)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var ev struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := dec.Decode(&ev); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) {
				return context.Cause(ctx)
			}
			return fmt.Errorf("the watch was cut: %w", err)
		}
		if ev.Type == "ERROR" {
			return statusError(ev.Object)
		}
		done, err := f(ev.Type, ev.Object)
		if done || err != nil {
			return err
		}
	}
}
