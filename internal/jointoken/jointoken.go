// Package jointoken is the one string that a device needs to join: where the hub is, whom to trust, and a secret with a
// lifetime and a number of uses. The hub keeps only the secret's hash, in a Secret of type petrel.dev/join-token in
// kube-system, so tokens are made, listed and deleted through the ordinary API:
//
//	petrel1.<base64url of: checksum, cluster id, hub's TLS pin, hub's static key, token id, secret, addresses, broker, names>
//
// The last part is there only in a token whose devices are named by a pattern; earlier agents pass over it.
//
// What is public of it (all but id and secret) stands in ConfigMap kube-public/petrel-cluster, put there by the hub.
package jointoken

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"petrel.dev/petrel/internal/nodename"
	"petrel.dev/petrel/internal/wire"
)

const (
	prefix   = "petrel1."
	checkLen = 4
)

// Errors of Parse. Each wraps a text that says what to do.
var (
	ErrNotToken = errors.New("not a join token")
	ErrTypo     = errors.New("join token is damaged")
)

// Cluster is the public part: what an agent must know of a hub.
type Cluster struct {
	ID        string
	Addresses []string // host:port, in order of preference
	Pin       wire.Pin
	Key       wire.PublicKey
	Broker    string // URL of an external broker, with the agents' user and password; empty: the hub's own
}

// Token is a join token taken apart.
type Token struct {
	Cluster
	TokenID string
	Secret  string
	// Names is the pattern by which a device names itself unless its operator does; empty: by its host name.
	Names nodename.Pattern
}

// String gives the token as people pass it on.
func (t Token) String() string {
	var b []byte
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	str(t.ID)
	b = append(b, t.Pin[:]...)
	b = append(b, t.Key[:]...)
	str(t.TokenID)
	str(t.Secret)
	b = binary.AppendUvarint(b, uint64(len(t.Addresses)))
	for _, a := range t.Addresses {
		str(a)
	}
	str(t.Broker)
	if t.Names != "" {
		str(string(t.Names))
	}
	return prefix + base64.RawURLEncoding.EncodeToString(append(checksum(b), b...))
}

func checksum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:checkLen]
}

// Parse takes a token apart. White space around and inside (from line breaks in a terminal) does not matter.
func Parse(s string) (Token, error) {
	s = strings.Join(strings.Fields(s), "")
	if s == "" {
		return Token{}, fmt.Errorf("%w: it is empty; get one on the hub with: petrel token create", ErrNotToken)
	}
	if !strings.HasPrefix(s, prefix) {
		if strings.HasPrefix(s, "petrel") && strings.Contains(s, ".") {
			return Token{}, fmt.Errorf("%w that this version understands (%q…): update petrel on this machine", ErrNotToken, s[:strings.Index(s, ".")])
		}
		return Token{}, fmt.Errorf("%w: it must start with %q; get one on the hub with: petrel token create", ErrNotToken, prefix)
	}
	raw, err := base64.RawURLEncoding.DecodeString(s[len(prefix):])
	if err != nil || len(raw) < checkLen || !bytes.Equal(checksum(raw[checkLen:]), raw[:checkLen]) {
		return Token{}, fmt.Errorf("%w: a character is wrong or missing; copy it again as a whole", ErrTypo)
	}
	r := reader{b: raw[checkLen:]}
	t := Token{Cluster: Cluster{ID: r.str()}}
	copy(t.Pin[:], r.take(len(t.Pin)))
	copy(t.Key[:], r.take(len(t.Key)))
	t.TokenID, t.Secret = r.str(), r.str()
	n, size := binary.Uvarint(r.b)
	r.take(size)
	for i := uint64(0); i < n && !r.bad; i++ {
		t.Addresses = append(t.Addresses, r.str())
	}
	t.Broker = r.str()
	if len(r.b) > 0 {
		t.Names = nodename.Pattern(r.str())
	}
	if r.bad || t.ID == "" || t.TokenID == "" || len(t.Addresses) == 0 && t.Broker == "" {
		return Token{}, fmt.Errorf("%w: its parts do not fit together; make a new one with: petrel token create", ErrTypo)
	}
	return t, nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) str() string {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	r.take(size)
	return string(r.take(int(n)))
}
