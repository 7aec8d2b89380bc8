package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"io"

	"github.com/flynn/noise"
)

// PublicKey is an X25519 public key: the hub's or a device's static key in the handshake.
type PublicKey [32]byte

// StaticKey is an X25519 key pair.
type StaticKey struct {
	Private [32]byte
	Public  PublicKey
}

// NewStaticKey makes a key pair from rand.
func NewStaticKey(rand io.Reader) (StaticKey, error) {
	dh, err := noise.DH25519.GenerateKeypair(rand)
	if err != nil {
		return StaticKey{}, fmt.Errorf("make static key: %w", err)
	}
	var k StaticKey
	copy(k.Private[:], dh.Private)
	copy(k.Public[:], dh.Public)
	return k, nil
}

func (k StaticKey) dh() noise.DHKey {
	return noise.DHKey{Private: k.Private[:], Public: k.Public[:]}
}

// NodeIDLen is the length of a node id in topics.
const NodeIDLen = 16

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Fingerprint names a device by both its keys: the Ed25519 key of its TLS certificate, which a broker sees, and the
// X25519 key of its handshakes, which the hub sees. A device that lacks either key is another device. Its first NodeIDLen
// characters are the node's id in topics.
func Fingerprint(tls ed25519.PublicKey, static PublicKey) string {
	h := sha256.New()
	h.Write([]byte("petrel device 1\x00"))
	h.Write(tls)
	h.Write(static[:])
	var s [sha256.Size]byte
	return base32Lower.EncodeToString(h.Sum(s[:0]))
}

// NodeID is a fingerprint's short form, used in topics and as MQTT client id.
func NodeID(fingerprint string) string {
	if len(fingerprint) < NodeIDLen {
		return fingerprint
	}
	return fingerprint[:NodeIDLen]
}
