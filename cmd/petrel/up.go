//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/hub"
	"petrel.dev/petrel/internal/cli"
	"petrel.dev/petrel/internal/nodename"
)

// upCmd is a whole cluster in one process. The agent joins its hub as any other would: through the port, with a token.
type upCmd struct {
	hubFlags
	nodeFlags
	// LogLevel is less than a service's: a person reads the message, which comes last, and nobody may miss a warning among lines without a problem.
	LogLevel string `enum:"debug,info,warn,error" default:"warn" help:"How much to log: ${enum}." placeholder:"LEVEL"`
	KeepPods bool   `help:"Leave pods running when this ends."`
}

func (c *upCmd) Run(ctx context.Context, s *cli.Streams, log *slog.Logger) error {
	if err := needRoot("petrel up runs containers"); err != nil {
		return err
	}
	hubConfig, err := c.hubFlags.config(log)
	if err != nil {
		return err
	}
	nodeConfig, err := c.nodeFlags.config(c.DataDir, log)
	if err != nil {
		return err
	}
	nodeConfig.StopPodsOnExit = !c.KeepPods
	if nodeConfig.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the machine's host name: %w; give one with --node-name", err)
		}
		nodeConfig.NodeName = strings.ToLower(name)
	}
	if name := nodename.Pattern(nodeConfig.NodeName); !name.IsPlain() {
		if nodeConfig.NodeName, err = name.Name(os.DirFS("/")); err != nil {
			return err
		}
	}
	fmt.Fprintln(s.Err, "Starting hub and agent. The first start unpacks what runs containers, which takes a while on a slow card.")
	h, err := hub.New(ctx, hubConfig)
	if err != nil {
		return err
	}
	// The hub outlives the agent, so that what the agent has to say at its end still arrives.
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.Run(hubCtx) })
	g.Go(func() error {
		defer stopHub()
		token, err := h.LocalToken(ctx, nodeConfig.NodeName)
		if err != nil {
			return err
		}
		nodeConfig.JoinToken = token
		nodeConfig.Joined = sync.OnceFunc(func() { c.greet(s.Out, h.Kubeconfig()) })
		return runAgent(ctx, nodeConfig)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// greet prints what can be done now. That is once all has started: hub, containerd, and the agent, which the hub has welcomed.
func (c *upCmd) greet(w io.Writer, kubeconfig string) {
	fmt.Fprintf(w, `Petrel is up. In another terminal:

    export KUBECONFIG=%s
    petrel get nodes          (or kubectl)

Other machines join with the output of: petrel token create
Ctrl-C stops it%s.
`, kubeconfig, map[bool]string{true: " and leaves the pods running", false: " and the pods"}[c.KeepPods])
}
