package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	clientscheme "k8s.io/client-go/kubernetes/scheme"

	"petrel.dev/petrel/internal/cli/manifest"
	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/printer"
	"petrel.dev/petrel/internal/cli/serverside"
)

// lastApplied holds what was applied last, by this command or by kubectl: what was in it and is no longer in the manifest
// is removed from the object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

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
		return c.apply(ctx, m, ns, obj, dry)
	}
	out, err := serverside.Apply(ctx, c.resource(m, ns), obj, f, dry == "server")
	return out, "applied on the server", err
}

// apply creates the object, or patches it by the difference of last-applied, manifest and live object.
func (c *conn) apply(ctx context.Context, m *meta.RESTMapping, ns string, obj *unstructured.Unstructured, dry string) (*unstructured.Unstructured, string, error) {
	modified, err := withLastApplied(obj)
	if err != nil {
		return nil, "", err
	}
	ri := c.resource(m, ns)
	if obj.GetName() == "" {
		return nil, "", errors.New("apply needs metadata.name; use create for generateName")
	}
	const tries = 5 // another client may write between our read and our patch
	for i := 0; ; i++ {
		live, err := ri.Get(ctx, obj.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			if dry == "client" {
				return obj, "created", nil
			}
			created := &unstructured.Unstructured{}
			if err := created.UnmarshalJSON(modified); err != nil {
				return nil, "", err
			}
			o, err := ri.Create(ctx, created, metav1.CreateOptions{DryRun: dryRun(dry), FieldManager: serverside.ClientManager, FieldValidation: "Strict"})
			return o, "created", err
		}
		if err != nil {
			return nil, "", err
		}
		pt, patch, err := threeWay(m, live, modified)
		if err != nil {
			return nil, "", err
		}
		if string(patch) == "{}" {
			return live, "unchanged", nil
		}
		if dry == "client" {
			return obj, "configured", nil
		}
		o, err := ri.Patch(ctx, obj.GetName(), pt, patch, metav1.PatchOptions{DryRun: dryRun(dry), FieldManager: serverside.ClientManager, FieldValidation: "Strict"})
		if apierrors.IsConflict(err) && i < tries {
			continue
		}
		if err == nil && dry == "none" && o.GetResourceVersion() == live.GetResourceVersion() { // a dry run never has another version
			return o, "unchanged", nil
		}
		return o, "configured", err
	}
}

// withLastApplied returns the manifest with itself in the annotation.
func withLastApplied(obj *unstructured.Unstructured) ([]byte, error) {
	bare := obj.DeepCopy()
	ann := bare.GetAnnotations()
	delete(ann, lastApplied)
	if len(ann) == 0 {
		ann = map[string]string{}
	}
	bare.SetAnnotations(ann) // kubectl too writes an empty map
	b, err := json.Marshal(bare.Object)
	if err != nil {
		return nil, err
	}
	ann[lastApplied] = string(b) + "\n"
	bare.SetAnnotations(ann)
	return json.Marshal(bare.Object)
}

// threeWay computes the patch: strategic for kinds with a Go type, merge for others.
func threeWay(m *meta.RESTMapping, live *unstructured.Unstructured, modified []byte) (types.PatchType, []byte, error) {
	current, err := json.Marshal(live.Object)
	if err != nil {
		return "", nil, err
	}
	original := []byte(live.GetAnnotations()[lastApplied])
	typed, err := clientscheme.Scheme.New(m.GroupVersionKind)
	if runtime.IsNotRegisteredError(err) {
		patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(original, modified, current)
		return types.MergePatchType, patch, err
	}
	if err != nil {
		return "", nil, err
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(typed)
	if err != nil {
		return "", nil, err
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(original, modified, current, schema, true)
	return types.StrategicMergePatchType, patch, err
}
