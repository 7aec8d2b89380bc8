package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/printers"
)

// APIResources lists what the server serves.
type APIResources struct {
	Cluster
	Namespaced *bool  `negatable:"" help:"Only types that live in namespaces, or (--no-namespaced) only those that do not."`
	Group      string `name:"api-group" help:"Only of this API group." placeholder:"GROUP"`
	Output     string `short:"o" enum:",wide,name" default:"" help:"wide adds verbs and categories, name prints names only." placeholder:"FORMAT"`
	NoHeaders  bool   `help:"Without the header line."`
}

// Run prints one line a type.
func (a *APIResources) Run(ctx context.Context, s *Streams) error {
	c, err := a.connect(ctx, s)
	if err != nil {
		return err
	}
	lists, err := c.discovery.ServerPreferredResources()
	if err != nil {
		return err
	}
	out := printers.GetNewTabWriter(s.Out)
	if !a.NoHeaders && a.Output != "name" {
		fmt.Fprint(out, "NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND")
		if a.Output == "wide" {
			fmt.Fprint(out, "\tVERBS\tCATEGORIES")
		}
		fmt.Fprintln(out)
	}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return err
		}
		if a.Group != "" && gv.Group != a.Group {
			continue
		}
		slices.SortFunc(l.APIResources, func(x, y metav1.APIResource) int { return strings.Compare(x.Name, y.Name) })
		for _, r := range l.APIResources {
			if len(r.Verbs) == 0 || strings.Contains(r.Name, "/") || a.Namespaced != nil && *a.Namespaced != r.Namespaced {
				continue
			}
			name := r.Name
			if gv.Group != "" && a.Output == "name" {
				name += "." + gv.Group
			}
			if a.Output == "name" {
				fmt.Fprintln(out, name)
				continue
			}
			fmt.Fprintf(out, "%s\t%s\t%s\t%v\t%s", name, strings.Join(r.ShortNames, ","), l.GroupVersion, r.Namespaced, r.Kind)
			if a.Output == "wide" {
				fmt.Fprintf(out, "\t%s\t%s", strings.Join(r.Verbs, ","), strings.Join(r.Categories, ","))
			}
			fmt.Fprintln(out)
		}
	}
	return out.Flush()
}
