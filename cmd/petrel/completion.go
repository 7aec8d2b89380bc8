package main

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/complete"
	"petrel.dev/petrel/internal/cli/defaults"
)

// completionTime is how long a press of Tab may take. A hub that does not answer within it has no names.
const completionTime = 2 * time.Second

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help shows where the script belongs.
func (*completionCmd) Help() string {
	return "bash: put `source <(petrel completion bash)` into ~/.bashrc.\n\n" +
		"zsh: put `source <(petrel completion zsh)` into ~/.zshrc, behind compinit.\n\n" +
		"fish: petrel completion fish > ~/.config/fish/completions/petrel.fish"
}

// Run prints the script.
func (c *completionCmd) Run(s *cli.Streams) error {
	_, err := io.WriteString(s.Out, complete.Scripts[c.Shell])
	return err
}

type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"-- and the words of the line behind petrel; the last one is completed."`
}

// Run prints how the line can go on; nothing when that is unknown.
func (c *completeCmd) Run(ctx context.Context, k *kong.Context, s *cli.Streams) error {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	file, _ := defaults.Read(k.Model, defaults.Path()) // without it the kubeconfig's own
	complete.Line(k.Model, words, func(at complete.Cluster) complete.Server {
		at.Kubeconfig = cmp.Or(at.Kubeconfig, file.Shared("kubeconfig"))
		at.Context = cmp.Or(at.Context, file.Shared("context"))
		at.Namespace = cmp.Or(at.Namespace, file.Shared("namespace"))
		return cli.Cluster{Kubeconfig: at.Kubeconfig, Context: at.Context, Namespace: at.Namespace}.Completer(ctx, s)
	}).Print(s.Out)
	return nil
}
