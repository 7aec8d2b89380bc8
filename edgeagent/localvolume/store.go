// Package localvolume keeps the directories of the built-in provisioner's volumes on this node: Store makes and removes them,
// Reclaimer removes those that the hub names.
//
//	DATA/agent/volumes/<handle>         a volume; made complete, by a rename
//	DATA/agent/volumes/.new-<handle>    one that was being made
//	DATA/agent/volumes/.gone-<handle>   one that is being removed; it comes up again with its instruction
//
// A directory is removed only when an instruction names it. One that nothing names stays: the set of what the hub wants may be
// older than the data.
package localvolume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/internal/durable"
)

// Store is the directory of all volumes. The zero value is of no use: Dir is set before the first call and does not change.
type Store struct{ Dir string }

// check refuses handles that could lead elsewhere: anyone who may make volumes chooses them.
func check(handle string) error {
	if problems := validation.IsDNS1123Subdomain(handle); len(problems) > 0 {
		return fmt.Errorf("volume handle %q: %s", handle, strings.Join(problems, ", "))
	}
	return nil
}

// Make returns the directory of a volume, and makes it if it is not there: empty, and open to every user, because which one the
// container runs as is not known. Nobody reaches it but through a mount: what is above it is root's.
func (s *Store) Make(handle string) (string, error) {
	if err := check(handle); err != nil {
		return "", err
	}
	dir := filepath.Join(s.Dir, handle)
	if fi, err := os.Lstat(dir); err == nil && fi.IsDir() {
		return dir, nil
	} else if err == nil {
		return "", fmt.Errorf("local volume %s: is no directory", dir)
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("local volume: %w", err)
	}
	next := filepath.Join(s.Dir, ".new-"+handle)
	err := errors.Join(os.MkdirAll(s.Dir, 0o700), os.RemoveAll(next))
	if err == nil {
		err = os.Mkdir(next, 0o700)
	}
	if err == nil {
		err = os.Chmod(next, 0o777) // not subject to the umask
	}
	if err == nil {
		err = durable.Rename(next, dir)
	}
	if err != nil {
		return "", fmt.Errorf("local volume: %w", err)
	}
	return dir, nil
}

// Path returns where the directory of a volume is, whether it exists or not.
func (s *Store) Path(handle string) string { return filepath.Join(s.Dir, handle) }

// Remove removes the directory of a volume with all that is in it; one that is not there is no error. Once it has begun, Make makes
// an empty one.
func (s *Store) Remove(handle string) error {
	if err := check(handle); err != nil {
		return err
	}
	gone := filepath.Join(s.Dir, ".gone-"+handle)
	if err := os.RemoveAll(gone); err != nil { // from an earlier call
		return fmt.Errorf("local volume: %w", err)
	}
	if err := durable.Rename(s.Path(handle), gone); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	return nil
}
