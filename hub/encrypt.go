package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	if err := h.makeKey(ctx, db, k); err != nil {
		return nil, err
	}
	var keys *seal.Keys
	if file := h.keyFile(); file != "" {
		var err error
		if keys, err = seal.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--encryption-key-file: %w", err)
		}
		if within(h.cfg.DataDir, file) && !h.cfg.EncryptSecrets {
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

// keyFile returns the file with the keys of Secrets; "" when they are in clear.
func (h *Hub) keyFile() string {
	if h.cfg.EncryptionKeyFile == "" && h.cfg.EncryptSecrets {
		return filepath.Join(h.cfg.DataDir, "secrets.key")
	}
	return h.cfg.EncryptionKeyFile
}

// makeKey makes the key file in the data directory when there is none and nothing is encrypted: a new key must not hide that an old one
// is lost. A file that the operator names is never made.
func (h *Hub) makeKey(ctx context.Context, db engine, secrets *resource.Kind) error {
	file := h.keyFile()
	if h.cfg.EncryptionKeyFile != "" || file == "" {
		return nil
	}
	if _, err := os.Lstat(file); err == nil {
		return nil
	}
	_, err := sealed.Open(ctx, db, nil, resource.Prefix(secrets, ""))
	if locked := (*sealed.LockedError)(nil); errors.As(err, &locked) {
		return h.lockedText(locked)
	}
	if err != nil {
		return fmt.Errorf("encryption: %w", err)
	}
	return seal.Create(file)
}

// lockedText returns an error that explains what the operator can do about a Secret that cannot be decrypted.
func (h *Hub) lockedText(e *sealed.LockedError) error {
	if forged := (*seal.ForgedError)(nil); errors.As(e, &forged) {
		return fmt.Errorf("%s: %w; restore a backup from %s", h.storePath(), e, h.backupDir())
	}
	if h.keyFile() == "" {
		return fmt.Errorf("%s: %w; give the file that holds it with --encryption-key-file", h.storePath(), e)
	}
	return fmt.Errorf("%s: %w in %s; add it there, as a line after the first, or give the file that holds it with --encryption-key-file", h.storePath(), e, h.keyFile())
}

func within(dir, file string) bool {
	rel, err := filepath.Rel(dir, file)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
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
