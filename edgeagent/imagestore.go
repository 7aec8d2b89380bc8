package edgeagent

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"

	"petrel.dev/petrel/edgeagent/ctrd"
	"petrel.dev/petrel/edgeagent/podrun"
)

// Images is the image store of a node, for commands beside its agent, which may run or not.
type Images struct {
	rt      *ctrd.Runtime
	podsDir string
}

// OpenImages opens the image store of the agent with this data directory. containerd is the agent's setting: a socket,
// "private", or empty. A private containerd that does not run is started for as long as the store is open.
func OpenImages(ctx context.Context, dataDir, containerd string) (*Images, error) {
	cfg := ctrd.Config{Address: containerd, DataDir: filepath.Join(dataDir, "agent"), Log: slog.New(slog.DiscardHandler)}
	if containerd == "private" {
		cfg.Address, cfg.Private = "", true
	}
	rt, err := ctrd.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Images{rt, filepath.Join(cfg.DataDir, "pods")}, nil
}

// Import reads an archive and returns the names of its images; they are pinned.
func (i *Images) Import(ctx context.Context, tar io.Reader) ([]string, error) {
	return i.rt.Import(ctx, tar)
}

// List returns the images, sorted by name.
func (i *Images) List(ctx context.Context) ([]ctrd.StoredImage, error) { return i.rt.List(ctx) }

// Prune removes what no container and no pod uses and nobody has imported, and returns the names.
func (i *Images) Prune(ctx context.Context) ([]string, error) {
	return i.rt.Collect(ctx, ctrd.Collection{Keep: podrun.SavedImages(i.podsDir)})
}

// Close leaves containerd as it was found.
func (i *Images) Close() error { return i.rt.Close(i.rt.Started()) }
