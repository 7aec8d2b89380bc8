// Package contexts shows and changes which clusters a kubeconfig names, and which of them is meant: one file can have the contexts of
// many hubs. The commands and their answers are those of kubectl config; add takes in the kubeconfig of a further hub.
package contexts

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/tools/clientcmd/api"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/nearest"
)

// Config are the commands.
type Config struct {
	GetContexts    getContexts    `cmd:"" name:"get-contexts" help:"List the contexts: which cluster, which user, which namespace."`
	CurrentContext currentContext `cmd:"" name:"current-context" help:"Print the context that is used."`
	UseContext     useContext     `cmd:"" name:"use-context" aliases:"use" help:"Use a context from now on."`
	SetContext     setContext     `cmd:"" name:"set-context" help:"Make a context, or change one: its namespace, for example."`
	RenameContext  renameContext  `cmd:"" name:"rename-context" help:"Give a context another name."`
	DeleteContext  deleteContext  `cmd:"" name:"delete-context" help:"Remove a context."`
	Add            add            `cmd:"" help:"Take in the kubeconfig of a further hub, or its URL with a token."`
	View           view           `cmd:"" help:"Print the kubeconfig, without its secrets."`
}

type getContexts struct {
	Kubeconfig
	Contexts  []string `arg:"" optional:"" name:"contexts" help:"Names of contexts. Default: all."`
	Output    string   `short:"o" enum:",name" default:"" help:"name: print only the names." placeholder:"FORMAT"`
	NoHeaders bool     `help:"Without the header line."`
}

func (c *getContexts) Run(s *cli.Streams) error {
	config, err := c.files().load()
	if err != nil {
		return err
	}
	names := c.Contexts
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(config.Contexts))
	}
	var errs []error
	out := printers.GetNewTabWriter(s.Out)
	defer out.Flush()
	header := !c.NoHeaders && c.Output == ""
	for _, name := range names {
		x, err := find(config, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if c.Output == "name" {
			fmt.Fprintln(out, name)
			continue
		}
		if header {
			fmt.Fprintln(out, "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE")
			header = false
		}
		mark := ""
		if name == config.CurrentContext {
			mark = "*"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", mark, name, x.Cluster, x.AuthInfo, x.Namespace)
	}
	if len(names) == 0 {
		fmt.Fprintf(s.Err, "No contexts in %s\n", c.files().main())
	}
	return errors.Join(errs...)
}

// find returns a context by its name; the error of one that is not there has the nearest name.
func find(config *api.Config, name string) (*api.Context, error) {
	if x, ok := config.Contexts[name]; ok {
		return x, nil
	}
	return nil, fmt.Errorf("no context exists with the name %q%s", name, nearest.Hint(name, slices.Sorted(maps.Keys(config.Contexts))))
}

// errNoCurrent is for what needs a current context.
var errNoCurrent = errors.New("no current context is set; `petrel config use-context NAME` sets one")

type currentContext struct{ Kubeconfig }

func (c *currentContext) Run(s *cli.Streams) error {
	config, err := c.files().load()
	if err != nil {
		return err
	}
	if config.CurrentContext == "" {
		return errNoCurrent
	}
	fmt.Fprintln(s.Out, config.CurrentContext)
	return nil
}

type useContext struct {
	Kubeconfig
	Context string `arg:"" name:"context" help:"Name of the context."`
}

func (c *useContext) Run(s *cli.Streams) error {
	config, err := c.files().load()
	if err != nil {
		return err
	}
	if _, err := find(config, c.Context); err != nil {
		return err
	}
	if err := use(c.files(), c.Context); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "Switched to context %q.\n", c.Context)
	return nil
}

// use makes a context the current one. The main file is the first that exists, so its choice is the one that counts.
func use(f files, name string) error {
	return change(f.main(), func(c *api.Config) error { c.CurrentContext = name; return nil })
}

type setContext struct {
	Kubeconfig
	Context   string  `arg:"" optional:"" name:"context" help:"Name of the context."`
	Current   bool    `help:"Change the current context."`
	Cluster   *string `help:"Its cluster." placeholder:"NAME"`
	User      *string `help:"Its user." placeholder:"NAME"`
	Namespace *string `short:"n" help:"The namespace of its requests." placeholder:"NAME"`
}

func (c *setContext) Run(s *cli.Streams) error {
	config, err := c.files().load()
	if err != nil {
		return err
	}
	name := c.Context
	switch {
	case c.Current == (name != ""):
		return errors.New("name a context, or give --current")
	case c.Current && config.CurrentContext == "":
		return errNoCurrent
	case c.Current:
		name = config.CurrentContext
	}
	origin, verb := "", "created"
	if x, ok := config.Contexts[name]; ok {
		origin, verb = x.LocationOfOrigin, "modified"
	}
	err = change(c.files().home(origin), func(one *api.Config) error {
		x := one.Contexts[name]
		if x == nil {
			x = api.NewContext()
			one.Contexts[name] = x
		}
		for _, field := range []struct {
			to   *string
			from *string
		}{{&x.Cluster, c.Cluster}, {&x.AuthInfo, c.User}, {&x.Namespace, c.Namespace}} {
			if field.from != nil {
				*field.to = *field.from
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.Cluster != nil && config.Clusters[*c.Cluster] == nil {
		fmt.Fprintf(s.Err, "Warning: there is no cluster %q in the kubeconfig yet%s\n", *c.Cluster, nearest.Hint(*c.Cluster, slices.Sorted(maps.Keys(config.Clusters))))
	}
	fmt.Fprintf(s.Out, "Context %q %s.\n", name, verb)
	return nil
}

type renameContext struct {
	Kubeconfig
	Context string `arg:"" name:"context" help:"Name of the context."`
	To      string `arg:"" name:"new-name" help:"Its new name."`
}

func (c *renameContext) Run(s *cli.Streams) error {
	config, err := c.files().load()
	if err != nil {
		return err
	}
	x, err := find(config, c.Context)
	if err != nil {
		return err
	}
	if config.Contexts[c.To] != nil {
		return fmt.Errorf("there is a context %q already: choose another name, or delete that one first", c.To)
	}
	home := c.files().home(x.LocationOfOrigin)
	err = change(home, func(one *api.Config) error {
		one.Contexts[c.To] = one.Contexts[c.Context]
		delete(one.Contexts, c.Context)
		if one.CurrentContext == c.Context {
			one.CurrentContext = c.To
		}
		return nil
	})
	if err == nil && config.CurrentContext == c.Context { // the choice may be in another file than the context
		err = use(c.files(), c.To)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "Context %q renamed to %q.\n", c.Context, c.To)
	return nil
}

type deleteContext struct {
	Kubeconfig
	Context string `arg:"" name:"context" help:"Name of the context."`
	Purge   bool   `help:"Also its cluster and its user, with its keys, where no other context has them."`
}

func (c *deleteContext) Run(s *cli.Streams) error {
	config, err := c.files().load()
	if err != nil {
		return err
	}
	x, err := find(config, c.Context)
	if err != nil {
		return err
	}
	home := c.files().home(x.LocationOfOrigin)
	if err := change(home, func(one *api.Config) error { delete(one.Contexts, c.Context); return nil }); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "deleted context %s from %s\n", c.Context, home)
	if config.CurrentContext == c.Context {
		fmt.Fprintln(s.Err, "Warning: it was the current context; `petrel config use-context NAME` chooses another one.")
	}
	if !c.Purge {
		return nil
	}
	delete(config.Contexts, c.Context)
	return purge(c.files(), config, x, s)
}

// purge removes the cluster and the user of a context that is gone.
func purge(f files, config *api.Config, gone *api.Context, s *cli.Streams) error {
	used := func(is func(*api.Context) bool) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(config.Contexts)), is)
	}
	var kept []string
	if cluster := config.Clusters[gone.Cluster]; cluster != nil {
		if used(func(x *api.Context) bool { return x.Cluster == gone.Cluster }) {
			kept = append(kept, "cluster "+gone.Cluster)
		} else if err := change(f.home(cluster.LocationOfOrigin), func(one *api.Config) error { delete(one.Clusters, gone.Cluster); return nil }); err != nil {
			return err
		}
	}
	if user := config.AuthInfos[gone.AuthInfo]; user != nil {
		if used(func(x *api.Context) bool { return x.AuthInfo == gone.AuthInfo }) {
			kept = append(kept, "user "+gone.AuthInfo)
		} else if err := change(f.home(user.LocationOfOrigin), func(one *api.Config) error { delete(one.AuthInfos, gone.AuthInfo); return nil }); err != nil {
			return err
		}
	}
	if len(kept) > 0 {
		fmt.Fprintf(s.Err, "Other contexts have its %s, which stays.\n", strings.Join(kept, " and its "))
	}
	return nil
}
