package hub

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"petrel.dev/petrel/internal/clock"
	"petrel.dev/petrel/internal/dirwatch"
	"petrel.dev/petrel/internal/seal"
)

// lookForBackups is how often it is looked whether the backups that need an older key have gone: they go once a night.
const lookForBackups = 12 * time.Hour

// keepSealed keeps Secrets encrypted with the first key of the key file until ctx ends, also when that changes: what is in clear or under
// an older key is written again, and its history compacted away; then the older keys leave the file, once no backup needs them.
// Each step can be repeated, so the hub may end at any of them.
func (h *Hub) keepSealed(ctx context.Context) error {
	if h.sealed == nil {
		<-ctx.Done()
		return nil
	}
	changed, stop, err := dirwatch.Watch(filepath.Dir(h.keyFile()))
	if err == nil {
		defer stop()
	} else {
		h.log.Warn("a new key in the key file will be seen at the next start only", "error", err)
	}
	t := time.NewTicker(lookForBackups)
	defer t.Stop()
	sealedBy := seal.KeyID{} // the key that all is encrypted with; zero: not known
	for {
		if err := h.rotate(ctx, &sealedBy); err != nil && ctx.Err() == nil {
			h.log.Error("Secrets could not all be encrypted with the first key of the key file, or older keys not removed from it; keep them", "file", h.keyFile(), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-t.C:
		}
	}
}

// rotate does what is left to do of a rotation.
func (h *Hub) rotate(ctx context.Context, sealedBy *seal.KeyID) error {
	file := h.keyFile()
	keys, err := seal.ReadFile(file)
	if err != nil {
		return err
	}
	first := keys.First()
	if *sealedBy == first && keys.Len() == 1 {
		return nil
	}
	if *sealedBy != first {
		syncFile(file) // an editor may not have: what is encrypted with a key that is lost is lost
		if err := h.sealed.SetKeys(ctx, keys); err != nil {
			return err
		}
		n, err := h.reseal(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			h.log.Info("Secrets that were in clear or under an older key are encrypted with the first key of the file", "count", n, "key", first.String())
		}
		*sealedBy = first
	}
	if keys.Len() == 1 {
		return nil
	}
	since, marked, err := seal.SealedSince(file)
	if err != nil {
		return err
	}
	if !marked {
		since = clock.Now().Truncate(time.Second).Add(time.Second) // the file has whole seconds; a backup of this one counts as older
		if err := seal.MarkSealed(file, first, since); err != nil {
			return err
		}
	}
	needed, err := h.backupBefore(since)
	if err != nil || needed != "" {
		if !marked && err == nil {
			h.log.Info("older keys stay in the key file until the backups from before have gone", "file", file, "backup", needed)
		}
		return err
	}
	// All that is stored is looked at once more: what is encrypted with a key that has been removed is lost.
	if err := h.sealed.SetKeys(ctx, keys.Alone()); err != nil {
		*sealedBy = seal.KeyID{}
		return err
	}
	if err := seal.DropOld(file, first); err != nil {
		return err
	}
	h.log.Info("older keys are not needed any more, and were removed from the key file", "file", file, "key", first.String())
	return nil
}

// reseal encrypts again what is in clear or under an older key, and compacts its history away. It returns how much that was.
func (h *Hub) reseal(ctx context.Context) (int, error) {
	n, err := h.sealed.Reseal(ctx, h.encodeSecret)
	if err != nil || n == 0 {
		return n, err
	}
	rev, err := h.db.Revision(ctx)
	if err != nil {
		return n, err
	}
	return n, h.db.Compact(ctx, rev)
}

// backupBefore returns a backup of the store that may have what was stored before t; "" when there is none. A backup is as old as its
// contents; how old those of an incomplete one are, nothing says.
func (h *Hub) backupBefore(t time.Time) (string, error) {
	entries, err := os.ReadDir(h.backupDir())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if fi.Mode().IsRegular() && (strings.HasSuffix(e.Name(), partSuffix) || !clock.Sane(fi.ModTime()).After(t)) {
			return filepath.Join(h.backupDir(), e.Name()), nil
		}
	}
	return "", nil
}

// syncFile makes what an editor has written durable, where the file system lets a reader do that.
func syncFile(path string) {
	if f, err := os.Open(path); err == nil {
		_ = f.Sync() // a read-only medium refuses, and needs it not
		f.Close()
	}
}
