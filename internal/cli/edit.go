package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/serverside"
)

// Edit opens an object in an editor and sends what changed.
type Edit struct {
	Cluster
	Args []string `arg:"" name:"what" help:"TYPE/NAME or TYPE NAME."`
}

// Run keeps the edited text in a file when the server refuses it.
func (e *Edit) Run(ctx context.Context, s *Streams) error {
	c, err := e.connect(ctx, s)
	if err != nil {
		return err
	}
	t, err := c.one(e.Args)
	if err != nil {
		return err
	}
	ri := c.resource(t.mapping, c.namespace)
	obj, err := c.get(ctx, t, c.namespace)
	if err != nil {
		return err
	}
	unstructured.RemoveNestedField(obj.Object, "metadata", "managedFields")
	before, err := yaml.Marshal(obj.Object)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "petrel-edit-*.yaml")
	if err != nil {
		return err
	}
	if _, err := f.Write(before); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := runEditor(ctx, s, f.Name()); err != nil {
		if text, readErr := os.ReadFile(f.Name()); readErr == nil && bytes.Equal(text, before) {
			os.Remove(f.Name())
			return err
		}
		return fmt.Errorf("%w; nothing was changed, your text is in %s", err, f.Name())
	}
	after, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		os.Remove(f.Name())
		fmt.Fprintln(s.Err, "Edit cancelled, no changes made.")
		return nil
	}
	kept := func(err error) error {
		return fmt.Errorf("%s; nothing was changed, your text is in %s", message.Of(err), f.Name())
	}
	was, err := yaml.YAMLToJSON(before)
	if err != nil {
		return kept(err)
	}
	now, err := yaml.YAMLToJSONStrict(after)
	if err != nil {
		return kept(err)
	}
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(was, now, was)
	if err != nil {
		return kept(err)
	}
	if _, err := ri.Patch(ctx, t.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager, FieldValidation: "Strict"}); err != nil {
		return kept(err)
	}
	os.Remove(f.Name())
	fmt.Fprintf(s.Out, "%s edited\n", display(t.mapping, t.name))
	return nil
}

func runEditor(ctx context.Context, s *Streams, file string) error {
	editor := "vi"
	for _, v := range []string{"KUBE_EDITOR", "EDITOR"} {
		if e := os.Getenv(v); e != "" {
			editor = e
			break
		}
	}
	words := append(strings.Fields(editor), file)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("editor %q: %w; set $EDITOR to one that is installed", editor, err)
		}
		return fmt.Errorf("editor %q: %w", editor, err)
	}
	return nil
}

// Patch changes fields of an object.
type Patch struct {
	Cluster
	Args        []string `arg:"" name:"what" help:"TYPE/NAME or TYPE NAME."`
	Patch       string   `short:"p" required:"" help:"The patch, as JSON or YAML." placeholder:"PATCH"`
	Type        string   `enum:"strategic,merge,json" default:"strategic" help:"How the patch is meant. (${enum})" placeholder:"TYPE"`
	Subresource string   `enum:",status,scale" default:"" help:"Patch this part of it: status or scale." placeholder:"NAME"`
	Output      string   `short:"o" help:"Print the object: yaml, json or name." placeholder:"FORMAT"`
}

// Run sends it.
func (p *Patch) Run(ctx context.Context, s *Streams) error {
	if err := checkOutput(p.Output); err != nil {
		return err
	}
	c, err := p.connect(ctx, s)
	if err != nil {
		return err
	}
	t, err := c.one(p.Args)
	if err != nil {
		return err
	}
	patch, err := yaml.YAMLToJSON([]byte(p.Patch))
	if err != nil {
		return fmt.Errorf("--patch: %w", err)
	}
	pt := map[string]types.PatchType{"strategic": types.StrategicMergePatchType, "merge": types.MergePatchType, "json": types.JSONPatchType}[p.Type]
	var sub []string
	if p.Subresource != "" {
		sub = append(sub, p.Subresource)
	}
	ri := c.resource(t.mapping, c.namespace)
	old, err := c.get(ctx, t, c.namespace)
	if err != nil {
		return err
	}
	obj, err := ri.Patch(ctx, t.name, pt, patch, metav1.PatchOptions{FieldManager: manager}, sub...)
	if err != nil {
		return err
	}
	verb := "patched"
	if old.GetResourceVersion() == obj.GetResourceVersion() {
		verb = "patched (no change)"
	}
	return report(s, t.mapping, obj, p.Output, verb, "none")
}

// Diff shows what apply would change.
type Diff struct {
	Cluster
	Filename  []string `short:"f" required:"" help:"Files or directories (- is standard input)." placeholder:"FILE"`
	Recursive bool     `short:"R" help:"Directories with all that is below them."`
	pruning
	serverside.Flags
}

// Help explains the exit code.
func (*Diff) Help() string {
	return "Ends with 0 when nothing differs, 1 when something does, and 2 when it could not find out."
}

// Run lets the server compute the result without storing it, and compares.
func (d *Diff) Run(ctx context.Context, s *Streams) error {
	differs, err := d.differs(ctx, s)
	switch {
	case err != nil:
		return &ExitError{Code: 2, Err: err}
	case differs:
		return &ExitError{Code: 1}
	}
	return nil
}

func (d *Diff) differs(ctx context.Context, s *Streams) (differs bool, err error) {
	if err := errors.Join(d.Check("server"), d.pruning.check()); err != nil {
		return false, err
	}
	c, ms, err := resolve(ctx, d.Cluster, s, d.Filename, d.Recursive)
	if err != nil {
		return false, err
	}
	_, members, err := d.pruning.open(ctx, c, ms)
	if err != nil {
		return false, err
	}
	changed := func() { differs = true }
	err = c.differences(ctx, s, d.Color, ms, d.Flags, changed)
	for _, m := range members {
		err = errors.Join(err, show(s, d.Color, display(m.Mapping, m.Object.GetName()), m.Object, nil, changed))
	}
	return differs, err
}
