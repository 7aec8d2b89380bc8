// Package identity is who a device is, and what it remembers of its hub. The keys are made by the device itself, once,
// and never leave it; nothing here expires. Two files in DATA/agent, both replaced atomically:
//
//	identity   the device's keys
//	hub        what the join token said, the hub's addresses since then, and how far epochs have been handed out
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/wire"
)

// Identity is a device's keys.
type Identity struct {
	TLS    ed25519.PrivateKey
	Static wire.StaticKey
}

type identityFile struct {
	Version int    `json:"version"`
	TLSSeed []byte `json:"tlsSeed"`
	Static  []byte `json:"static"`
	Public  []byte `json:"staticPublic"`
}

// Load reads the device's keys from dir, making them when there are none. A damaged file is an error, not a reason to
// become another device.
func Load(dir string) (*Identity, error) {
	path := filepath.Join(dir, "identity")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("device identity: %w", err)
	}
	var f identityFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version != 1 || len(f.TLSSeed) != ed25519.SeedSize || len(f.Static) != 32 || len(f.Public) != 32 {
		return nil, fmt.Errorf("device identity %s is damaged or of a newer version; remove it to become a new device, and join again with a new token", path)
	}
	id := &Identity{TLS: ed25519.NewKeyFromSeed(f.TLSSeed)}
	copy(id.Static.Private[:], f.Static)
	copy(id.Static.Public[:], f.Public)
	return id, nil
}

func create(dir, path string) (*Identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("device identity: %w", err)
	}
	static, err := wire.NewStaticKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("device identity: %w", err)
	}
	f := identityFile{1, key.Seed(), static.Private[:], static.Public[:]}
	if err := save(dir, path, f); err != nil {
		return nil, fmt.Errorf("device identity: %w", err)
	}
	return &Identity{key, static}, nil
}

// Fingerprint names the device.
func (i *Identity) Fingerprint() string {
	return wire.Fingerprint(i.TLS.Public().(ed25519.PublicKey), i.Static.Public)
}

// PublicTLS is the device's public TLS key.
func (i *Identity) PublicTLS() (k [32]byte) {
	copy(k[:], i.TLS.Public().(ed25519.PublicKey))
	return k
}

// save replaces a file atomically and durably.
func save(dir, path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, append(b, '\n'), 0o600)
}
