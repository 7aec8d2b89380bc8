// Command petrel is the whole of Petrel in one binary: the hub, the edge agent, and the client that drives a fleet.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/contexts"
	"petrel.dev/petrel/internal/cli/defaults"
	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/nearest"
	"petrel.dev/petrel/internal/cli/top"
)

const defaultDataDir = "/var/lib/petrel"

// program is the command tree. Every flag is also a PETREL_* variable; those of hub and agent are keys in
// /etc/petrel/hub.yaml and agent.yaml too.
type program struct {
	machineCommands

	Completion completionCmd `cmd:"" group:"machine" help:"Print the script that completes commands, flags, types and names in a shell."`
	Version    versionCmd    `cmd:"" group:"machine" help:"Print what this Petrel is, and the hub's version."`

	cli.Commands
	Config contexts.Config `cmd:"" group:"fleet" help:"Show and change which hubs a kubeconfig names, and which is used."`
	Top    top.Top         `cmd:"" group:"fleet" help:"Show what nodes and pods use."`
	Token  tokenCmd        `cmd:"" group:"fleet" help:"Create, list and end the tokens that devices join with, and those of users."`

	Complete completeCmd `cmd:"" hidden:"" name:"__complete" help:"What the script of completion asks."`
	Docs     docsCmd     `cmd:"" hidden:"" help:"Write the man pages and docs/cli.md."`
	Serve    serveCmd    `cmd:"" hidden:"" help:"The demonstration server of examples/hello.yaml."`
	Fetch    fetchCmd    `cmd:"" hidden:"" help:"Print the answer of one HTTP GET."`
}

// logFlags are those of the commands that run for long.
type logFlags struct {
	LogLevel string `enum:"debug,info,warn,error" default:"info" help:"How much to log: ${enum}." placeholder:"LEVEL"`
}

func main() {
	os.Exit(run(os.Args[1:], &cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// run is main without the process around it.
func run(args []string, s *cli.Streams) int {
	s.LocalKubeconfig = filepath.Join(defaultDataDir, "admin.kubeconfig")
	if d := os.Getenv("PETREL_DATA_DIR"); d != "" {
		s.LocalKubeconfig = filepath.Join(d, "admin.kubeconfig")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // who interrupts a second time means it

	var p program
	code := -1
	options := append(tree(),
		kong.Writers(s.Out, s.Err),
		kong.Exit(func(c int) { code = c }),
		kong.Resolvers(defaults.BelowEnvironment(configFiles("/etc/petrel")), defaults.BelowEnvironment(defaults.Resolver(defaults.Path()))),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
	)
	parser, err := kong.New(&p, options...)
	if err != nil {
		fmt.Fprintln(s.Err, "petrel:", err)
		return 2
	}
	if len(args) == 0 { // the first thing that is tried
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(flagsFirst(parser.Model, commandFirst(parser.Model, args)))
	if code >= 0 { // --help has been answered
		return code
	}
	if file, ok := errors.AsType[*defaults.Error](err); ok {
		fmt.Fprintln(s.Err, "petrel:", file)
		return 2
	}
	if err != nil {
		fmt.Fprintln(s.Err, "petrel:", suggested(plainly(err), parser.Model, args))
		var pe *kong.ParseError
		if at := "petrel"; errors.As(err, &pe) {
			if pe.Context != nil && pe.Context.Selected() != nil {
				at = strings.TrimSuffix(aliases.ReplaceAllString(pe.Context.Selected().FullPath(), ""), " manifests") // `create` without a kind
			}
			fmt.Fprintf(s.Err, "Run `%s --help` for how to use it.\n", at)
		}
		return 2
	}
	log := logger(s.Err, levelOf(kctx))
	switch c := kctx.Selected().Target.Addr().Interface().(type) {
	// These run for months, without the parser: its description of all commands has more than a megabyte.
	case *hubCmd:
		err = c.Run(ctx, log)
	case *agentCmd:
		err = c.Run(ctx, log)
	case *upCmd:
		err = c.Run(ctx, s, log)
	default:
		kctx.Bind(log)
		err = kctx.Run()
	}
	var exit *cli.ExitError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return 130
	case errors.As(err, &exit):
		if exit.Err != nil {
			fmt.Fprintln(s.Err, "petrel:", message.Of(exit.Err))
		}
		return exit.Code
	}
	fmt.Fprintln(s.Err, "petrel:", message.Of(err))
	return 1
}

// tree returns the options of the parser that say what the commands are, and how their help looks.
func tree() []kong.Option {
	return []kong.Option{
		kong.Name("petrel"),
		kong.Description("Petrel turns Raspberry Pi-class machines into a container fleet that keeps working when its links do not. " +
			"You drive it with the Kubernetes API: kubectl, helm and the commands below.\n\n" +
			"Start with `petrel up` on one machine, as root; then `petrel get nodes`. " +
			"Every flag can be given as an environment variable too: --data-dir is PETREL_DATA_DIR. Defaults of the commands on the fleet stand in ~/.config/petrel/config.yaml.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted; exec ends with the command's own, diff with 1 when something differs."),
		kong.DefaultEnvars("PETREL"),
		kong.ValueFormatter(helpText),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ExplicitGroups([]kong.Group{{Key: "machine", Title: "This machine:"}, {Key: "fleet", Title: "The fleet, as with kubectl:"}}),
	}
}

// levelOf is the --log-level of the command that was chosen, if it has one.
func levelOf(kctx *kong.Context) string {
	for _, f := range kctx.Flags() {
		if f.Name == "log-level" {
			return kctx.FlagValue(f).(string)
		}
	}
	return "info"
}

// helpText adds a flag's default where its text does not say it. That each flag is a PETREL_* variable stands once, at the top.
func helpText(v *kong.Value) string {
	switch v.Default {
	case "", "-1", "none", "true", "false":
		return v.Help
	}
	if !v.HasDefault || strings.Contains(v.Help, "Default:") {
		return v.Help
	}
	return v.Help + " Default: " + v.Default + "."
}

func logger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // the flag's enum allows only valid ones
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
}

// configFiles resolves flags of `petrel hub` from DIR/hub.yaml and of `petrel agent` from DIR/agent.yaml, below flags and
// environment. A file that cannot be read as YAML, or has a key that is no flag, stops the command.
func configFiles(dir string) kong.Resolver {
	loaded := map[string]map[string]any{}
	return kong.ResolverFunc(func(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
		if parent.Command == nil || parent.Command.Name != "hub" && parent.Command.Name != "agent" || parent.Command.Parent.Type != kong.ApplicationNode {
			return nil, nil // those of `petrel install` are what will be in the file
		}
		name := parent.Command.Name
		values, ok := loaded[name]
		if !ok {
			var err error
			if values, err = readSettings(filepath.Join(dir, name+".yaml"), parent.Command); err != nil {
				return nil, &defaults.Error{Err: err}
			}
			loaded[name] = values
		}
		v, ok := values[flag.Name]
		if !ok {
			return nil, nil
		}
		if list, isList := v.([]any); isList {
			words := make([]string, len(list))
			for i, w := range list {
				words[i] = fmt.Sprint(w)
			}
			return strings.Join(words, ","), nil
		}
		return fmt.Sprint(v), nil
	})
}

// aliases are what the parser writes behind a command's name: create deployment (deploy).
var aliases = regexp.MustCompile(` \([^)]*\)`)

// readSettings reads the file of settings of a command; without one there are none.
func readSettings(file string, command *kong.Command) (values map[string]any, err error) {
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var known []string
	for _, f := range command.Flags {
		known = append(known, f.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("%s: %q is no setting of petrel %s, whose flags are the settings%s", file, key, command.Name, nearest.Hint(key, known))
		}
	}
	return values, nil
}
