package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Create makes objects: from files, or of a few common kinds by flags.
type Create struct {
	Manifests  CreateFiles      `cmd:"" default:"withargs" help:"The objects of files: create -f FILE."`
	Namespace  CreateNamespace  `cmd:"" aliases:"ns" help:"A namespace."`
	ConfigMap  CreateConfigMap  `cmd:"" name:"configmap" aliases:"cm" help:"A ConfigMap from values and files."`
	Secret     CreateSecret     `cmd:"" help:"A Secret from values and files."`
	Deployment CreateDeployment `cmd:"" aliases:"deploy" help:"A Deployment of one image."`
}

// CreateFiles creates what the files hold; an object that exists already is an error.
type CreateFiles struct {
	Cluster
	Filename  []string `short:"f" required:"" help:"Files or directories (- is standard input)." placeholder:"FILE"`
	Recursive bool     `short:"R" help:"Directories with all that is below them."`
	creation
}

// Run creates them in the order of the files.
func (f *CreateFiles) Run(ctx context.Context, s *Streams) error {
	if err := checkOutput(f.Output); err != nil {
		return err
	}
	c, ms, err := resolve(ctx, f.Cluster, s, f.Filename, f.Recursive)
	if err != nil {
		return err
	}
	return each(ctx, ms, func(m resolved) error { return f.create(ctx, c, s, newObject{m.mapping, m.namespace, m.Object}) })
}

// creation is what every form of create does with an object, and what the user chooses about it.
type creation struct {
	DryRun string `enum:"none,client,server" default:"none" help:"client prints what would be sent, server lets the hub check it; nothing is stored. (${enum})" placeholder:"WHERE"`
	Output string `short:"o" help:"Print the objects: yaml, json or name." placeholder:"FORMAT"`
}

// newObject is an object that does not exist yet, and where it goes.
type newObject struct {
	mapping   *meta.RESTMapping
	namespace string // "" for types without namespaces
	object    *unstructured.Unstructured
}

func (k creation) create(ctx context.Context, c *conn, s *Streams, o newObject) error {
	if k.DryRun != "client" {
		opts := metav1.CreateOptions{DryRun: dryRun(k.DryRun), FieldManager: manager, FieldValidation: "Strict"}
		created, err := c.resource(o.mapping, o.namespace).Create(ctx, o.object, opts)
		if err != nil {
			return err
		}
		o.object = created
	}
	return report(s, o.mapping, o.object, k.Output, "created", k.DryRun)
}

// generated holds what all the flag-made kinds share.
type generated struct {
	Cluster
	Name string `arg:"" help:"Name of the new object."`
	creation
}

func (g generated) make(ctx context.Context, s *Streams, content map[string]any) error {
	if err := checkOutput(g.Output); err != nil {
		return err
	}
	c, err := g.connect(ctx, s)
	if err != nil {
		return err
	}
	obj := &unstructured.Unstructured{Object: content}
	obj.SetName(g.Name)
	gvk := obj.GroupVersionKind()
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	if namespaced(m) {
		obj.SetNamespace(c.namespace)
	}
	return g.create(ctx, c, s, newObject{m, c.namespace, obj})
}

// CreateNamespace creates a namespace.
type CreateNamespace struct{ generated }

// Run creates it.
func (n *CreateNamespace) Run(ctx context.Context, s *Streams) error {
	return n.make(ctx, s, map[string]any{"apiVersion": "v1", "kind": "Namespace"})
}

// CreateConfigMap creates a ConfigMap.
type CreateConfigMap struct {
	generated
	Literal []string `name:"from-literal" help:"A value: KEY=VALUE." placeholder:"KEY=VALUE"`
	File    []string `name:"from-file" help:"A file, under its own name or KEY: [KEY=]FILE." placeholder:"FILE"`
}

// Run creates it.
func (m *CreateConfigMap) Run(ctx context.Context, s *Streams) error {
	values, err := keyValues(m.Literal, m.File)
	if err != nil {
		return err
	}
	data, binary := map[string]any{}, map[string]any{}
	for k, v := range values {
		if utf8.ValidString(v) {
			data[k] = v
		} else {
			binary[k] = base64.StdEncoding.EncodeToString([]byte(v))
		}
	}
	obj := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": data}
	if len(binary) > 0 {
		obj["binaryData"] = binary
	}
	return m.make(ctx, s, obj)
}

// CreateSecret creates a Secret. kubectl's "generic" before the name is accepted.
type CreateSecret struct {
	Cluster
	Words   []string `arg:"" name:"name" help:"Name of the new Secret."`
	Literal []string `name:"from-literal" help:"A value: KEY=VALUE." placeholder:"KEY=VALUE"`
	File    []string `name:"from-file" help:"A file, under its own name or KEY: [KEY=]FILE." placeholder:"FILE"`
	Type    string   `default:"Opaque" help:"Type of the Secret." placeholder:"TYPE"`
	creation
}

// Run creates it.
func (c *CreateSecret) Run(ctx context.Context, s *Streams) error {
	words := c.Words
	if len(words) == 2 && words[0] == "generic" {
		words = words[1:]
	}
	if len(words) != 1 {
		return fmt.Errorf("create secret takes one name, not %q", strings.Join(c.Words, " "))
	}
	values, err := keyValues(c.Literal, c.File)
	if err != nil {
		return err
	}
	data := map[string]any{}
	for k, v := range values {
		data[k] = base64.StdEncoding.EncodeToString([]byte(v))
	}
	g := generated{Cluster: c.Cluster, Name: words[0], creation: c.creation}
	return g.make(ctx, s, map[string]any{"apiVersion": "v1", "kind": "Secret", "type": c.Type, "data": data})
}

// CreateDeployment creates a Deployment.
type CreateDeployment struct {
	generated
	Image    string   `required:"" help:"Image of its one container." placeholder:"IMAGE"`
	Replicas int64    `default:"1" help:"How many pods." placeholder:"N"`
	Port     int64    `help:"Port that the container listens on." placeholder:"PORT"`
	Command  []string `arg:"" optional:"" passthrough:"" help:"Command of the container, after --."`
}

// Run creates it.
func (d *CreateDeployment) Run(ctx context.Context, s *Streams) error {
	image := d.Image[strings.LastIndex(d.Image, "/")+1:]
	name, _, _ := strings.Cut(image, "@")
	name, _, _ = strings.Cut(name, ":")
	container := map[string]any{"name": name, "image": d.Image}
	if len(d.Command) > 0 && d.Command[0] == "--" {
		d.Command = d.Command[1:]
	}
	if len(d.Command) > 0 {
		words := make([]any, len(d.Command))
		for i, w := range d.Command {
			words[i] = w
		}
		container["command"] = words
	}
	if d.Port != 0 {
		container["ports"] = []any{map[string]any{"containerPort": d.Port}}
	}
	labels := map[string]any{"app": d.Name}
	return d.make(ctx, s, map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"labels": labels},
		"spec": map[string]any{
			"replicas": d.Replicas,
			"selector": map[string]any{"matchLabels": labels},
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels},
				"spec":     map[string]any{"containers": []any{container}},
			},
		},
	})
}

// keyValues reads --from-literal and --from-file.
func keyValues(literals, files []string) (map[string]string, error) {
	out := map[string]string{}
	add := func(k, v string) error {
		if _, twice := out[k]; twice {
			return fmt.Errorf("the key %q is given twice", k)
		}
		out[k] = v
		return nil
	}
	for _, l := range literals {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--from-literal %q is not KEY=VALUE", l)
		}
		if err := add(k, v); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		k, name, ok := strings.Cut(f, "=")
		if !ok {
			k, name = filepath.Base(f), f
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--from-file: %w", err)
		}
		if err := add(k, string(b)); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it would be empty: give --from-literal KEY=VALUE or --from-file FILE")
	}
	return out, nil
}
