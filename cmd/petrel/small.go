package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/hello"
)

type serveCmd struct {
	Listen string `default:":8080" help:"Address to listen on."`
	Files  string `help:"Directory whose files are shown." placeholder:"DIR"`
}

func (c *serveCmd) Run(ctx context.Context, s *cli.Streams) error {
	return hello.Server{Listen: c.Listen, Files: c.Files, Out: s.Out}.Run(ctx)
}

type fetchCmd struct {
	URL     string        `arg:"" help:"What to get."`
	Timeout time.Duration `default:"5s" help:"Give up after this time."`
}

func (c *fetchCmd) Run(ctx context.Context, s *cli.Streams) error {
	if err := hello.Fetch(ctx, s.Out, c.URL, c.Timeout); err != nil {
		return errors.New(err.Error()) // its text alone: it is no error of a hub, and must not look like one
	}
	return nil
}

type versionCmd struct {
	cli.Cluster
	Client bool   `help:"Only of this binary; do not ask a hub."`
	Output string `short:"o" enum:",json" default:"" help:"json prints everything that is known." placeholder:"FORMAT"`
}

func (c *versionCmd) Run(ctx context.Context, s *cli.Streams) error {
	info := buildinfo.Get()
	if c.Output == "json" {
		return json.NewEncoder(s.Out).Encode(struct {
			buildinfo.Info
			Programs map[string]string `json:"programs,omitempty"` // what agents run containers with, name → version
		}{info, inside()})
	}
	fmt.Fprintf(s.Out, "petrel %s (Kubernetes API %s, %s, %s)\n", info.Version, info.Kubernetes, info.Platform, info.Go)
	programs := inside()
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprintf(s.Out, "%s %s inside\n", name, programs[name])
	}
	if c.Client {
		return nil
	}
	version, err := c.ServerVersion(ctx, s)
	if err != nil {
		fmt.Fprintln(s.Err, "hub:", message.Of(err))
		return nil // asking for one's own version is no failure without a hub
	}
	fmt.Fprintf(s.Out, "hub %s\n", version)
	return nil
}
