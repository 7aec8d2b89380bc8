package ctrd

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shimState is where every containerd's shims and runc have their state, whatever the directories of containerd itself are.
const shimState = "/run/containerd"

// Tidy removes what a private containerd and its pods have left after Close with stop: the run directory, unless something is
// mounted in it, and what other agents and containerds share with it, where they have nothing there. Only the agent whose
// directory it is may do so.
func (r *Runtime) Tidy() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(" "+r.cfg.RunDir+"/")) {
		return err
	}
	return errors.Join(os.RemoveAll(r.cfg.RunDir), r.cgroups.RemoveEmpty(), removeEmpty(shimState, r.cfg.Namespace))
}

// removeEmpty removes the directories in root that shims and runc have made for a containerd namespace and have nothing in any more,
// children first, and root itself. They make them again when they need them.
func removeEmpty(root, namespace string) error {
	var errs []error
	for _, dir := range []string{filepath.Join("runc", namespace), "runc", "s", "fifo", "."} {
		err := os.Remove(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("state of shims: %w", err))
		}
	}
	return errors.Join(errs...)
}

// shimSocket returns where the shim of a pod listens. Its name is that of containerd's protocol for shims: of what they share, which is the pod.
func (r *Runtime) shimSocket(podUID string) string {
	sum := sha256.Sum256([]byte(filepath.Join(r.address, r.cfg.Namespace, podUID)))
	return filepath.Join(shimState, "s", hex.EncodeToString(sum[:]))
}

// removeShimSocket removes the socket of a pod whose shim has ended. containerd's shim looks for one of its own container's name, and leaves
// the pod's, which takes memory until the next boot.
func (r *Runtime) removeShimSocket(podUID string) error {
	if err := os.Remove(r.shimSocket(podUID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket of the shim: %w", err)
	}
	return nil
}
