package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/reference"
)

// exits are the exit codes of all commands; run and cli.ExitError make them.
var exits = []reference.Exit{
	{Code: "0", Meaning: "Done. For hub, agent and up also: ended because they were asked to, by Ctrl-C or SIGTERM."},
	{Code: "1", Meaning: "Failed: the hub cannot be reached or refused, an object does not exist, a time-out of wait, drain or rollout status is over, a rollout failed. " +
		"Of several objects the others are dealt with all the same. For diff: something differs."},
	{Code: "2", Meaning: "The command line is wrong, and nothing was done: a command, flag or argument that there is not, one that is missing, a value that is none of those allowed, " +
		"a file of defaults or settings that cannot be read. What only the command itself can judge, such as two flags that exclude each other, is 1. For diff: it failed."},
	{Code: "130", Meaning: "Interrupted, by Ctrl-C or SIGTERM, before it was done."},
	{Code: "other", Meaning: "For exec: the exit code of the command in the container, also when it is one of the above; 128 and the signal's number when a signal ended it."},
}

// files are those that commands read by themselves.
var files = []reference.File{
	{Path: "~/.kube/config", Content: "Which hubs there are, with users and keys; $KUBECONFIG names another file, or several with colons between. petrel config shows and changes it."},
	{Path: "~/.config/petrel/config.yaml", Content: "Defaults of the commands on the fleet, in $XDG_CONFIG_HOME when that is set. Keys are flags that all have (namespace, context, kubeconfig, color), or commands with " +
		"flags of theirs, as in get: {output: wide}. A flag on the command line counts first, then its environment variable, then the command's key, then the key for all."},
	{Path: "/etc/petrel/hub.yaml, /etc/petrel/agent.yaml", Content: "Settings of petrel hub and petrel agent: their flags, without dashes. Flags and environment variables count before them."},
	{Path: "/var/lib/petrel", Content: "All state of hub and agent, where --data-dir says nothing else. The hub's admin.kubeconfig there is used on its own machine when nothing else names a cluster."},
}

type docsCmd struct {
	Man      string `help:"Write a man page for each command into this directory." placeholder:"DIR" type:"path"`
	Markdown string `help:"Write the whole reference into this file." placeholder:"FILE" type:"path"`
}

// Run writes what was asked for.
func (c *docsCmd) Run(k *kong.Context, s *cli.Streams) error {
	if c.Man == "" && c.Markdown == "" {
		return errors.New("say what to write: --man DIR or --markdown FILE")
	}
	m := manual(k.Model)
	if c.Markdown != "" {
		if err := os.WriteFile(c.Markdown, []byte(m.Markdown()), 0o644); err != nil {
			return err
		}
	}
	if c.Man == "" {
		return nil
	}
	if err := os.MkdirAll(c.Man, 0o755); err != nil {
		return err
	}
	pages := m.Man()
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if err := os.WriteFile(filepath.Join(c.Man, name), []byte(pages[name]), 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.Out, "%d man pages are in %s\n", len(pages), c.Man)
	return nil
}

func manual(app *kong.Application) reference.Manual {
	return reference.Manual{App: app, FlagHelp: helpText, Version: buildinfo.Get().Version, Exits: exits, Files: files}
}
