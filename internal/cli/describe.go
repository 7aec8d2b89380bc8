package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/describe"
)

// Describe shows objects in full, with what happened to them, as kubectl does: the descriptions are kubectl's own.
type Describe struct {
	Cluster
	Args          []string `arg:"" name:"what" help:"TYPE, TYPE NAME... or TYPE/NAME...; TYPE PREFIX for all whose names begin so."`
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
	if len(objs) == 0 && len(d.Args) == 2 && len(missing) == 1 {
		if objs, err = c.beginningWith(ctx, d.Args[0], d.Args[1]); err != nil {
			return err
		}
		if len(objs) > 0 {
			missing = nil
		}
	}
	if len(objs) == 0 && len(missing) == 0 {
		fmt.Fprintln(s.Err, "No resources found")
		return nil
	}
	for i, o := range objs {
		text, err := d.one(c, o)
		if isNotFound(err) { // deleted since it was listed
			missing = append(missing, err)
			continue
		}
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprint(s.Out, "\n\n")
		}
		fmt.Fprint(s.Out, text)
	}
	return errors.Join(missing...)
}

// one describes an object. A kind that kubectl has no description of, a custom one for example, is described by its fields.
func (d *Describe) one(c *conn, o found) (string, error) {
	describer, ok := describe.DescriberFor(o.mapping.GroupVersionKind.GroupKind(), c.config)
	if !ok {
		describer, ok = describe.GenericDescriberFor(o.mapping, c.config)
	}
	if !ok {
		return "", fmt.Errorf("%s cannot be described", display(o.mapping, o.object.GetName()))
	}
	const chunk = 500 // what kubectl asks for in one request
	text, err := describer.Describe(o.object.GetNamespace(), o.object.GetName(), describe.DescriberSettings{ShowEvents: d.ShowEvents, ChunkSize: chunk})
	if why := whyPending(o.object); why != "" {
		if at := strings.LastIndex(text, "\nEvents:"); at >= 0 {
			return text[:at+1] + why + text[at+1:], err
		}
		text += why
	}
	return text, err
}

// beginningWith returns the objects of one type whose names begin with prefix: the pods of a Deployment, for example.
func (c *conn) beginningWith(ctx context.Context, typ, prefix string) (objs []found, err error) {
	mappings, err := c.mappings(typ)
	if err != nil {
		return nil, err
	}
	for _, m := range mappings {
		list, err := c.resource(m, c.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			if strings.HasPrefix(list.Items[i].GetName(), prefix) {
				objs = append(objs, found{&list.Items[i], m})
			}
		}
	}
	return objs, nil
}
