package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/cli/applyset"
	"petrel.dev/petrel/internal/cli/difference"
	"petrel.dev/petrel/internal/cli/screen"
	"petrel.dev/petrel/internal/cli/serverside"
)

// pruning are the flags of a set of objects that are applied together.
type pruning struct {
	ApplySet string `name:"applyset" help:"With --prune: the set that the objects belong to, by its parent: NAME of a Secret, which is made, or TYPE/NAME." placeholder:"[TYPE/]NAME"`
	Prune    bool   `help:"With --applyset: delete the objects of the set that are no longer in the files."`
}

func (p pruning) check() error {
	switch {
	case p.Prune && p.ApplySet == "":
		return errors.New("--prune needs --applyset NAME: the set whose objects may be deleted")
	case p.ApplySet != "" && !p.Prune:
		return errors.New("--applyset needs --prune: without it nothing is ever deleted of the set")
	}
	return nil
}

// open takes the manifests into the set, and returns it with its members that are no longer among them. Without a set it returns nil.
func (p pruning) open(ctx context.Context, c *conn, ms []resolved) (*applyset.Set, []applyset.Member, error) {
	if p.ApplySet == "" {
		return nil, nil, nil
	}
	set, err := applyset.Open(ctx, c.dynamic, c.mapper, p.ApplySet, c.namespace)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range ms {
		if err := set.Add(m.mapping, m.Object); err != nil {
			return nil, nil, fmt.Errorf("nothing was changed: %s: %w", m.Source, err)
		}
	}
	members, err := set.Members(ctx, func(x applyset.Member) bool {
		return slices.ContainsFunc(ms, func(m resolved) bool {
			return m.mapping.GroupVersionKind.GroupKind() == x.Mapping.GroupVersionKind.GroupKind() && m.namespace == x.Object.GetNamespace() && m.Object.GetName() == x.Object.GetName()
		})
	})
	return set, members, err
}

// prune deletes the members that were shown. One that has come since, because another applies the same set, is left, and stays in the set.
func (p pruning) prune(ctx context.Context, s *Streams, set *applyset.Set, members []applyset.Member, applied map[types.UID]bool, dry string) error {
	shown := map[types.UID]bool{}
	for _, m := range members {
		shown[m.Object.GetUID()] = true
	}
	deleted := func(m applyset.Member) {
		suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[dry]
		fmt.Fprintf(s.Out, "%s pruned%s\n", display(m.Mapping, m.Object.GetName()), suffix)
	}
	if dry == "client" {
		for _, m := range members {
			deleted(m)
		}
		return nil
	}
	if err := set.Prune(ctx, members, dry == "server", deleted); err != nil {
		return err
	}
	others, err := set.Members(ctx, func(m applyset.Member) bool { return applied[m.Object.GetUID()] || shown[m.Object.GetUID()] })
	if err != nil {
		return err
	}
	if len(others) > 0 {
		fmt.Fprintf(s.Err, "Warning: %s and perhaps more came into the set meanwhile and is left; apply again to delete it\n", display(others[0].Mapping, others[0].Object.GetName()))
		return nil
	}
	return set.End(ctx, dry == "server")
}

// errDeclined ends a command whose question was answered with no.
var errDeclined = errors.New("nothing was changed")

// confirm shows what apply would change and delete, and asks whether to go on. It asks only a person at a terminal: without one,
// --preview without --yes ends here, and pruning goes on, as kubectl's does.
func (a *Apply) confirm(ctx context.Context, c *conn, s *Streams, ms []resolved, members []applyset.Member) error {
	changes := len(members)
	if a.Preview {
		if err := c.differences(ctx, s, a.Color, ms, a.Flags, func() { changes++ }); err != nil {
			return fmt.Errorf("nothing was changed: %w", err)
		}
	}
	for _, m := range members {
		where := ""
		if ns := m.Object.GetNamespace(); ns != "" {
			where = " in namespace " + ns
		}
		fmt.Fprintf(s.Err, "will be deleted: %s%s\n", display(m.Mapping, m.Object.GetName()), where)
	}
	switch {
	case a.Yes || a.DryRun != "none":
		return nil
	case changes == 0:
		fmt.Fprintln(s.Err, "Nothing would change.")
		return nil
	case !screen.Interactive(s.In) && a.Preview:
		return errors.New("nothing was changed: there is no terminal to ask at; give --yes to do what is shown")
	case !screen.Interactive(s.In):
		return nil
	}
	yes, err := screen.Ask(ctx, s.In, s.Err, "Do it?")
	if err == nil && !yes {
		err = errDeclined
	}
	return err
}

// differences prints how each object would change, by a dry run on the server, and calls changed for each that does.
func (c *conn) differences(ctx context.Context, s *Streams, color string, ms []resolved, f serverside.Flags, changed func()) error {
	return each(ctx, ms, func(m resolved) error {
		live, err := c.resource(m.mapping, m.namespace).Get(ctx, m.Object.GetName(), metav1.GetOptions{})
		if err != nil && !isNotFound(err) {
			return err
		}
		if isNotFound(err) {
			live = nil
		}
		next, _, err := c.applyWith(ctx, m.mapping, m.namespace, m.Object, f, "server")
		if live == nil && isNotFound(err) && makesNamespace(ms, m.namespace) {
			next, err = m.Object, nil // the server cannot check it before its namespace is there
		}
		if err != nil {
			return err
		}
		return show(s, color, display(m.mapping, m.Object.GetName()), live, next, changed)
	})
}

// makesNamespace reports whether a namespace is among the objects that are applied.
func makesNamespace(ms []resolved, name string) bool {
	return slices.ContainsFunc(ms, func(m resolved) bool {
		return m.Object.GetKind() == "Namespace" && m.Object.GetAPIVersion() == "v1" && m.Object.GetName() == name
	})
}

// show prints how an object changes; next is nil when it is deleted.
func show(s *Streams, color, name string, live, next *unstructured.Unstructured, changed func()) error {
	text, err := difference.Of(name, live, next)
	if err != nil || len(text) == 0 {
		return err
	}
	changed()
	if screen.Colours(s.Out, color) {
		text = difference.Paint(text)
	}
	_, err = s.Out.Write(text)
	return err
}
