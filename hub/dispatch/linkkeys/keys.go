// Package linkkeys keeps what identifies the hub on its links.
package linkkeys

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/wire"
)

// Keys identify the hub on its links: which cluster it is, and the static key that join tokens name. They never change.
type Keys struct {
	ClusterID string
	Static    wire.StaticKey
}

type keysFile struct {
	ClusterID string `json:"clusterID"`
	Private   string `json:"private"`
	Public    string `json:"public"`
}

// Load reads the keys from path, making them when there are none. They are part of every backup: without them no
// node can connect again.
func Load(path string) (Keys, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKeys(path)
	}
	if err != nil {
		return Keys{}, fmt.Errorf("link keys: %w", err)
	}
	var f keysFile
	err = json.Unmarshal(b, &f)
	priv, err1 := base64.RawURLEncoding.DecodeString(f.Private)
	pub, err2 := base64.RawURLEncoding.DecodeString(f.Public)
	if err != nil || err1 != nil || err2 != nil || len(priv) != 32 || len(pub) != 32 || f.ClusterID == "" {
		return Keys{}, fmt.Errorf("link keys %s are damaged; put the file back from a backup (with new keys every node would have to join again)", path)
	}
	k := Keys{ClusterID: f.ClusterID}
	copy(k.Static.Private[:], priv)
	copy(k.Static.Public[:], pub)
	return k, nil
}

func createKeys(path string) (Keys, error) {
	k := Keys{}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return k, fmt.Errorf("link keys: %w", err)
	}
	k.ClusterID = hex.EncodeToString(id[:])
	var err error
	if k.Static, err = wire.NewStaticKey(rand.Reader); err != nil {
		return k, err
	}
	b, err := json.MarshalIndent(keysFile{
		ClusterID: k.ClusterID,
		Private:   base64.RawURLEncoding.EncodeToString(k.Static.Private[:]),
		Public:    base64.RawURLEncoding.EncodeToString(k.Static.Public[:]),
	}, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = durable.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return k, fmt.Errorf("link keys: %w", err)
	}
	return k, nil
}
