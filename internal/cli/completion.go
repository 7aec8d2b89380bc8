package cli

import (
	"context"
	"io"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/internal/cli/complete"
)

// Completer returns what completion asks of the cluster. ctx limits the time of all its questions.
func (c Cluster) Completer(ctx context.Context, s *Streams) complete.Server {
	conn, _ := c.connect(ctx, &Streams{In: s.In, Out: io.Discard, Err: io.Discard, LocalKubeconfig: s.LocalKubeconfig}) // nil: it knows no names
	return completer{ctx, c.Kubeconfig, conn}
}

type completer struct {
	ctx        context.Context // of this one press of Tab
	kubeconfig string
	conn       *conn // nil when no cluster is configured
}

// Types implements complete.Server.
func (c completer) Types() (names []string) {
	if c.conn == nil {
		return nil
	}
	lists, _ := c.conn.discovery.ServerPreferredResources() // what could be found out will do
	for _, l := range lists {
		for _, r := range l.APIResources {
			if slices.Contains(r.Verbs, "list") && !strings.Contains(r.Name, "/") {
				names = append(names, r.Name)
			}
		}
	}
	return names
}

// Names implements complete.Server.
func (c completer) Names(typ string) []string {
	if c.conn == nil {
		return nil
	}
	ms, err := c.conn.mappings(typ)
	if err != nil {
		return nil
	}
	return c.conn.names(c.ctx, ms[0], c.conn.namespace)
}

// Contexts implements complete.Server.
func (c completer) Contexts() (names []string) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	config, err := rules.Load()
	if err != nil {
		return nil
	}
	for name := range config.Contexts {
		names = append(names, name)
	}
	return names
}
