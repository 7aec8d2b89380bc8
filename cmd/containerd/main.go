// Command containerd is containerd with the parts that Petrel's agent uses, and nothing else: the content and metadata stores, two
// snapshotters, the runtime of shims, and their services on a socket. It travels inside petrel (edgeagent/programs) and runs
// as the agent's child. Its configuration is containerd's own (`--config FILE`), so that the agent can run a
// distribution's containerd in its place.
package main

import (
	"context"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"petrel.dev/petrel/internal/lean"
)

func main() {
	file := flag.String("config", "", "configuration `FILE`")
	flag.Parse()
	if flag.NArg() > 0 || *file == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(context.Background(), *file); err != nil {
		fmt.Fprintln(os.Stderr, "containerd:", err)
		os.Exit(1)
	}
}

// run serves until a signal ends it. Until it serves, a signal ends the process at once: a database that another
// process has locked is waited for without limit.
func run(ctx context.Context, file string) error {
	cfg := &config.Config{Version: version.ConfigVersion, Plugins: map[string]any{}}
	if err := config.LoadConfigWithPlugins(ctx, file, registered, cfg); err != nil {
		return fmt.Errorf("configuration %s: %w", file, err)
	}
	if err := log.SetLevel(cfg.Debug.Level); cfg.Debug.Level != "" && err != nil {
		return fmt.Errorf("configuration %s: %w", file, err)
	}
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return fmt.Errorf("directories: %w", err)
	}
	if err := mount.SetTempMountLocation(filepath.Join(cfg.Root, "tmpmounts")); err != nil {
		return fmt.Errorf("temporary mounts: %w", err)
	}
	if left, err := mount.CleanupTempMounts(0); err != nil || len(left) > 0 { // of an earlier life that was killed
		log.L.WithField("left", left).Warnf("temporary mounts are not removed: %v", err)
	}
	s, err := server.New(ctx, cfg)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	s.Wait()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := lean.Run(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	s.Stop()
	return nil
}

// registered are the plugins of this program, for their parts in reading an older form of the configuration.
func registered() iter.Seq[plugin.Registration] {
	return slices.Values(registry.Graph(func(*plugin.Registration) bool { return false }))
}
