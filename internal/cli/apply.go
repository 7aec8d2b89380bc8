package cli

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/cli/clientside"
	"petrel.dev/petrel/internal/cli/manifest"
	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/printer"
	"petrel.dev/petrel/internal/cli/serverside"
)

// manager names Petrel's CLI in managed fields.
const manager = serverside.Manager

// Apply creates or changes objects so that they are as in the files.
type Apply struct {
	Cluster
	Filename  []string `short:"f" required:"" help:"Files or directories (- is standard input)." placeholder:"FILE"`
	Recursive bool     `short:"R" help:"Directories with all that is below them."`
	DryRun    string   `enum:"none,client,server" default:"none" help:"client prints what would be sent, server lets the hub check it; nothing is stored. (${enum})" placeholder:"WHERE"`
	Output    string   `short:"o" help:"Print the objects: yaml, json or name." placeholder:"FORMAT"`
	Preview   bool     `help:"Show first what would change, and ask whether to do it; without a terminal it is not done."`
	Yes       bool     `short:"y" help:"Do not ask, neither after --preview nor before --prune deletes something."`
	pruning
	serverside.Flags
}

// Help explains sets.
func (*Apply) Help() string {
	return "With --applyset and --prune the objects of the files are a set: each that was in them at an earlier apply with that set, and is no longer, is deleted. " +
		"What will be deleted is shown before anything is done. Sets are those of kubectl apply --applyset, which can go on with them."
}

// Run reads and resolves everything first, then applies in the order of the files, then prunes.
func (a *Apply) Run(ctx context.Context, s *Streams) error {
	if err := checkOutput(a.Output); err != nil {
		return err
	}
	if err := errors.Join(a.Check(a.DryRun), a.pruning.check()); err != nil {
		return err
	}
	if a.Preview && a.DryRun != "none" {
		return errors.New("--preview shows what a dry run finds out, and then applies: leave out --dry-run")
	}
	c, ms, err := resolve(ctx, a.Cluster, s, a.Filename, a.Recursive)
	if err != nil {
		return err
	}
	set, members, err := a.pruning.open(ctx, c, ms)
	if err != nil {
		return err
	}
	if a.Preview || len(members) > 0 {
		if err := a.confirm(ctx, c, s, ms, members); err != nil {
			return err
		}
	}
	if set != nil && a.DryRun != "client" {
		if err := set.Begin(ctx, a.DryRun == "server"); err != nil {
			return err
		}
	}
	applied := map[types.UID]bool{}
	err = each(ctx, ms, func(m resolved) error {
		obj, verb, err := c.applyWith(ctx, m.mapping, m.namespace, m.Object, a.Flags, a.DryRun)
		if err != nil {
			return err
		}
		applied[obj.GetUID()] = true
		return report(s, m.mapping, obj, a.Output, verb, a.DryRun)
	})
	if err != nil || set == nil {
		return err // what is not applied as a whole is not pruned
	}
	return a.pruning.prune(ctx, s, set, members, applied, a.DryRun)
}

// resolved is an object of a file, its type and its namespace.
type resolved struct {
	manifest.Document
	mapping   *meta.RESTMapping
	namespace string
}

// resolve reads all documents and finds the type and namespace of each: a file of which one document cannot be understood changes
// nothing.
func resolve(ctx context.Context, cl Cluster, s *Streams, files []string, recursive bool) (*conn, []resolved, error) {
	docs, err := manifest.Read(s.In, files, recursive)
	if err != nil {
		return nil, nil, err
	}
	c, err := cl.connect(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	ms := make([]resolved, len(docs))
	var errs []error
	for i, d := range docs {
		ms[i].Document = d
		m, err := c.mappingOf(d)
		if err == nil {
			ms[i].mapping = m
			ms[i].namespace, err = c.namespaceOf(m, d, cl.Namespace)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("nothing was changed: %w", err)
	}
	return c, ms, nil
}

// mappingOf finds the resource type of a document.
func (c *conn) mappingOf(d manifest.Document) (*meta.RESTMapping, error) {
	gvk := d.Object.GroupVersionKind()
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("%s: the server knows no kind %q in %q; `petrel api-resources` lists those it has", d.Source, gvk.Kind, gvk.GroupVersion())
	}
	return m, err
}

// namespaceOf returns the namespace of a document's object: its own namespace, or the request's. An explicit -n must not contradict.
func (c *conn) namespaceOf(m *meta.RESTMapping, d manifest.Document, explicit string) (string, error) {
	if !namespaced(m) {
		return "", nil
	}
	own := d.Object.GetNamespace()
	if own == "" {
		d.Object.SetNamespace(c.namespace)
		return c.namespace, nil
	}
	if explicit != "" && own != explicit {
		return "", fmt.Errorf("%s: the namespace of the object, %q, is not the one of -n, %q", d.Source, own, explicit)
	}
	return own, nil
}

// each calls f for each manifest. What the server refuses is collected, so that all of it is reported.
func each(ctx context.Context, ms []resolved, f func(resolved) error) error {
	var errs []error
	for _, m := range ms {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := f(m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", m.Source, message.Of(err)))
		}
	}
	return errors.Join(errs...)
}

func dryRun(where string) []string {
	if where == "server" {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// checkOutput refuses a wrong -o before anything is written.
func checkOutput(format string) error {
	switch format {
	case "", "name":
		return nil
	case "wide":
		return errors.New("-o wide is a table, and this command prints none; use yaml, json or name")
	}
	_, err := printer.For(format, false)
	return err
}

// report prints what happened to an object, the way the user asked.
func report(s *Streams, m *meta.RESTMapping, obj *unstructured.Unstructured, output, verb, dry string) error {
	if output != "" && output != "name" {
		p, err := printer.For(output, false)
		if err != nil {
			return err
		}
		return p.PrintObj(obj, s.Out)
	}
	if output == "name" {
		fmt.Fprintln(s.Out, display(m, obj.GetName()))
		return nil
	}
	suffix := ""
	switch dry {
	case "client":
		suffix = " (dry run)"
	case "server":
		suffix = " (server dry run)"
	}
	fmt.Fprintf(s.Out, "%s %s%s\n", display(m, obj.GetName()), verb, suffix)
	return nil
}

// applyWith applies the object on the side that the flags say.
func (c *conn) applyWith(ctx context.Context, m *meta.RESTMapping, ns string, obj *unstructured.Unstructured, f serverside.Flags, dry string) (*unstructured.Unstructured, string, error) {
	if !f.ServerSide {
		return clientside.Apply(ctx, c.resource(m, ns), m.GroupVersionKind, obj, dry)
	}
	out, err := serverside.Apply(ctx, c.resource(m, ns), obj, f, dry == "server")
	return out, "applied on the server", err
}
