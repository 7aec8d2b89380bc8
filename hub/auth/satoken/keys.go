package satoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
	"petrel.dev/petrel/internal/clock"
)

const (
	// KeyFile in the PKI directory is the key that signs.
	KeyFile = "sa.key"
	// retiredDir in the PKI directory has the public halves of the keys that signed before, KEYID.pem.
	retiredDir = "sa-retired"
	// retiredHeader of such a file is when the key was replaced.
	retiredHeader = "Retired"
	// rotateAfter is the age at which a key is replaced. A key that leaked without a trace signs for no longer than that.
	rotateAfter = 90 * 24 * time.Hour
)

// Keys sign and verify tokens: one key signs, those that signed before it verify until their tokens have run out. It is safe for
// concurrent use; the files are the record, of which a running hub has a copy.
type Keys struct {
	dir string           // the PKI directory; does not change
	now func() time.Time // never nil; may be wrong: see clock.Sane
	// set is never nil after Open, and replaced as a whole.
	set atomic.Pointer[keySet]
}

// keySet is immutable.
type keySet struct {
	signer *ecdsa.PrivateKey
	since  time.Time            // when signer was made
	all    map[string]publicKey // by key id, the signer's own among them
}

type publicKey struct {
	key     *ecdsa.PublicKey
	retired time.Time // zero: it signs
}

// Open reads the keys of a PKI directory, and makes the first one.
func Open(dir string, now func() time.Time) (*Keys, error) {
	k := &Keys{dir: dir, now: now}
	if _, err := keyfile.Read(k.path(), func() error { return nil }); err != nil {
		return nil, err
	}
	return k, k.Reload()
}

func (k *Keys) path() string { return filepath.Join(k.dir, KeyFile) }

// Reload reads the keys again: another process may have rotated them. After an error the keys before stay in force.
func (k *Keys) Reload() error {
	signer, err := keyfile.Read(k.path(), func() error {
		return fmt.Errorf("the key %s is gone: restore it from a backup, or restart the hub, which makes another one (all tokens end)", k.path())
	})
	if err != nil {
		return err
	}
	fi, err := os.Stat(k.path())
	if err != nil {
		return err
	}
	all, err := readRetired(filepath.Join(k.dir, retiredDir))
	if err != nil {
		return err
	}
	all[keyID(&signer.PublicKey)] = publicKey{key: &signer.PublicKey}
	k.set.Store(&keySet{signer: signer, since: clock.Sane(fi.ModTime()), all: all})
	return nil
}

func readRetired(dir string) (map[string]publicKey, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	all := map[string]publicKey{}
	for _, f := range files {
		key, err := readPublic(f)
		if err != nil {
			return nil, fmt.Errorf("retired token key %s: %w; restore it from a backup, or remove it: tokens of that key end then", f, err)
		}
		if id := keyID(key.key); id+".pem" != filepath.Base(f) {
			return nil, fmt.Errorf("retired token key %s: it holds the key %s; remove it, or give it that name", f, id)
		}
		all[keyID(key.key)] = key
	}
	return all, nil
}

func readPublic(file string) (publicKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return publicKey{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return publicKey{}, errors.New("it holds no PEM block")
	}
	at, err := time.Parse(time.RFC3339, block.Headers[retiredHeader])
	if err != nil {
		return publicKey{}, fmt.Errorf("its header %s is no time", retiredHeader)
	}
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return publicKey{}, err
	}
	key, ok := any.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return publicKey{}, errors.New("it is not an ECDSA P-256 key")
	}
	return publicKey{key: key, retired: at}, nil
}

// Rotate makes a new key that signs from now on. The private half of the one before is gone; its public half verifies its tokens until
// they have run out. After a power cut at any step either the old key signs, listed as retired too, or the new one.
func (k *Keys) Rotate() error {
	if err := k.Reload(); err != nil { // another process may have rotated
		return err
	}
	old := &k.set.Load().signer.PublicKey
	der, err := x509.MarshalPKIXPublicKey(old)
	if err != nil {
		return fmt.Errorf("retire token key: %w", err)
	}
	dir := filepath.Join(k.dir, retiredDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("retire token key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{
		Type: "PUBLIC KEY", Bytes: der, Headers: map[string]string{retiredHeader: clock.Sane(k.now()).UTC().Format(time.RFC3339)},
	})
	if err := keyfile.Write(filepath.Join(dir, keyID(old)+".pem"), text, 0o600); err != nil {
		return err
	}
	if _, err := keyfile.Create(k.path()); err != nil {
		return err
	}
	return k.Reload()
}

// Upkeep rotates a key that is old, and removes retired keys whose tokens have all run out. inUse reports whether a token that does not
// run out was signed with a key; nil: not known, so nothing is removed.
func (k *Keys) Upkeep(inUse func(kid string) bool, log *slog.Logger) error {
	set, now := k.set.Load(), clock.Sane(k.now())
	var errs []error
	if now.Sub(set.since) > rotateAfter {
		if err := k.Rotate(); err != nil {
			errs = append(errs, fmt.Errorf("rotate token key: %w", err))
		} else if log != nil {
			log.Info("ServiceAccount tokens are signed with a new key; tokens of the one before stay good until they expire", "key", k.Current(), "before", keyID(&set.signer.PublicKey))
		}
	}
	if inUse == nil {
		return errors.Join(errs...)
	}
	removed := 0
	for id, key := range k.set.Load().all {
		if key.retired.IsZero() || now.Sub(key.retired) <= MaxLifetime || inUse(id) {
			continue
		}
		if err := os.Remove(filepath.Join(k.dir, retiredDir, id+".pem")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove retired token key: %w", err))
			continue
		}
		removed++
	}
	if removed > 0 {
		errs = append(errs, k.Reload())
	}
	return errors.Join(errs...)
}

// Current returns the id of the key that signs.
func (k *Keys) Current() string { return keyID(&k.set.Load().signer.PublicKey) }

// Knows reports whether a key verifies.
func (k *Keys) Knows(kid string) bool {
	_, ok := k.set.Load().all[kid]
	return ok
}

// KeyIDOf returns the id of the key that a token names as its own; "" when it names none. Nothing is verified.
func KeyIDOf(token string) string {
	head, _, _ := strings.Cut(token, ".")
	h, err := decodeHeader(head)
	if err != nil {
		return ""
	}
	return h.Kid
}

// JWKS returns the public halves as a JSON Web Key Set (RFC 7517), for programs that verify tokens themselves: first the key that
// signs, then the retired ones.
func (k *Keys) JWKS() []byte {
	set := k.set.Load()
	current := keyID(&set.signer.PublicKey)
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(set.all)), func(id string) bool { return id == current })
	keys := []any{jwk(current, &set.signer.PublicKey)}
	for _, id := range ids {
		keys = append(keys, jwk(id, set.all[id].key))
	}
	out, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic("satoken: strings have a JSON form: " + err.Error())
	}
	return out
}

func jwk(id string, pub *ecdsa.PublicKey) map[string]string {
	raw := point(pub)
	enc := base64.RawURLEncoding.EncodeToString
	return map[string]string{"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256", "x": enc(raw[1:33]), "y": enc(raw[33:65])}
}

// point returns 4, X, Y.
func point(pub *ecdsa.PublicKey) []byte {
	raw, err := pub.Bytes()
	if err != nil {
		panic("satoken: a P-256 key has an encoding: " + err.Error())
	}
	return raw
}
