package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"petrel.dev/petrel/hub"
)

// startHub runs a hub without nodes below dir, until stop is called.
func startHub(dir string) (kubeconfig string, stop func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	h, err := hub.New(ctx, hub.Config{
		DataDir: dir, Listen: "127.0.0.1:0", Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.162.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.163.0.0/16"),
	})
	if err != nil {
		cancel()
		return "", nil, err
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	return h.Kubeconfig(), func() error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}, nil
}

// TestFleetScripts runs the fleet verbs against a hub in this process, one a script. No node joins it: what a hub alone
// answers is tested here, what runs in containers is in test/e2e.
func TestFleetScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/fleet",
		Setup: func(e *testscript.Env) error {
			kubeconfig, stop, err := startHub(e.WorkDir + "/hub")
			if err != nil {
				return err
			}
			e.Defer(func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("KUBECONFIG", kubeconfig)
			return nil
		},
	})
}
