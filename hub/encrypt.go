package hub

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/sqlstore/sealed"
)

// encrypted is an engine whose Secrets are cipher text on the disk.
type encrypted struct {
	*sealed.Store
	keeper
}

// encrypt returns the engine with encryption of Secrets over it, by the keys that the operator has named. Without a key it returns
// the engine itself, and refuses a store with encrypted Secrets.
func (h *Hub) encrypt(ctx context.Context, db engine) (engine, error) {
	k, ok := h.kinds.Lookup(kube.Secret)
	if !ok {
		return nil, errors.New("encryption: the kind Secret is not served")
	}
	var keys *seal.Keys
	if file := h.cfg.EncryptionKeyFile; file != "" {
		var err error
		if keys, err = seal.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--encryption-key-file: %w", err)
		}
		if within(h.cfg.DataDir, file) {
			h.log.Warn("the encryption key is on the disk that it protects: a thief of the disk has both; keep the key file elsewhere", "file", file)
		}
	}
	store, err := sealed.Open(ctx, db, keys, resource.Prefix(k, ""))
	if locked := (*sealed.LockedError)(nil); errors.As(err, &locked) {
		return nil, h.lockedText(locked)
	}
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	if keys == nil {
		return db, nil
	}
	h.log.Info("Secrets are encrypted on the disk", "key", keys.First().String())
	h.sealed = store
	return encrypted{store, db}, nil
}

// lockedText returns an error that explains what the operator can do about a Secret that cannot be decrypted.
func (h *Hub) lockedText(e *sealed.LockedError) error {
	if forged := (*seal.ForgedError)(nil); errors.As(e, &forged) {
		return fmt.Errorf("%s: %w; restore a backup from %s", h.storePath(), e, h.backupDir())
	}
	if h.cfg.EncryptionKeyFile == "" {
		return fmt.Errorf("%s: %w; give the file that holds it with --encryption-key-file", h.storePath(), e)
	}
	return fmt.Errorf("%s: %w in %s; add it there, as a line after the first, or give the file that holds it with --encryption-key-file", h.storePath(), e, h.cfg.EncryptionKeyFile)
}

func within(dir, file string) bool {
	rel, err := filepath.Rel(dir, file)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// encryptRest encrypts Secrets again that are in clear or under an older key, once after a start, and compacts their history away.
func (h *Hub) encryptRest(ctx context.Context) error {
	if h.sealed != nil {
		n, err := h.sealed.Reseal(ctx, h.encodeSecret)
		if err == nil && n > 0 {
			rev, rerr := h.db.Revision(ctx)
			if err = rerr; err == nil {
				err = h.db.Compact(ctx, rev)
			}
		}
		switch {
		case ctx.Err() != nil:
		case err != nil: // a full disk is no reason to stop; the next start tries again
			h.log.Error("Secrets that are in clear or under an older key could not all be encrypted again: keep the older keys in the file", "done", n, "error", err)
		case n > 0:
			h.log.Info("Secrets that were in clear or under an older key are encrypted with the first key of the file", "count", n)
		}
	}
	<-ctx.Done()
	return nil
}

// encodeSecret takes the revision out of a stored Secret.
func (h *Hub) encodeSecret(_ string, value []byte) (without []byte, revAt int, err error) {
	k, ok := h.kinds.Lookup(kube.Secret)
	if !ok {
		return nil, 0, errors.New("the kind Secret is not served")
	}
	obj, err := k.Codec.Decode(value)
	if err != nil {
		return nil, 0, err
	}
	return k.Codec.Encode(obj)
}
