package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"petrel.dev/petrel/edgeagent/ctrd"
)

// StopPods ends the pods that an agent of the same configuration has left running, removes what they have on the machine, their
// network too, and ends a private containerd. Nothing happens where no agent has ever run. It fails while an agent runs. The pods
// stay wanted: the next agent starts them.
func StopPods(ctx context.Context, cfg Config) (err error) {
	cfg.StopPodsOnExit = true
	a, err := New(cfg)
	if err != nil {
		return err
	}
	if _, err := os.Stat(a.podsDir()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockDir(a.dir)
	if err != nil {
		return err
	}
	defer unlock()
	if a.rt, err = ctrd.Open(ctx, a.runtimeConfig()); err != nil {
		return fmt.Errorf("stopping pods: %w", err)
	}
	a.lastNetwork = a.newNetwork(networks{}) // only to clean up, for which what is in the kernel is enough
	err = errors.Join(atMost(stopGrace+stopLimit, "stopping the pods", a.stopPods), a.rt.Close(true))
	if a.rt.Private() {
		err = errors.Join(err, a.rt.Tidy())
	}
	return err
}
