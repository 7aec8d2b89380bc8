package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Hash is the hash of a set of (ID, Version) pairs: the sum of a strong hash of each member, so it does not depend on
// order and a change costs one addition and one subtraction. The empty set's is the zero Hash.
type Hash [2]uint64

// IsZero reports whether h is the empty set's hash.
func (h Hash) IsZero() bool { return h == Hash{} }

// String is the hash in hex, for logs.
func (h Hash) String() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], h[0])
	binary.BigEndian.PutUint64(b[8:], h[1])
	return hex.EncodeToString(b[:])
}

// Add puts a member into the hashed set.
func (h *Hash) Add(id ID, version uint64) {
	m := memberHash(id, version)
	h[0] += m[0]
	h[1] += m[1]
}

// Remove takes a member out of the hashed set.
func (h *Hash) Remove(id ID, version uint64) {
	m := memberHash(id, version)
	h[0] -= m[0]
	h[1] -= m[1]
}

func memberHash(id ID, version uint64) Hash {
	b := make([]byte, 0, 96)
	b = append(b, id.Kind...)
	b = append(b, 0)
	b = append(b, id.UID...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, version)
	s := sha256.Sum256(b)
	return Hash{binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:16])}
}

// Entry is one member of a set without its content.
type Entry struct {
	ID
	Version uint64
}

// ContentVersion makes a Version of what an object says. Revisions of a store will not do: after a restore from an old
// backup the same revision can mean another content.
func ContentVersion(o *Object) uint64 {
	h := sha256.New()
	for _, s := range []string{string(o.Kind), o.UID, o.Namespace, o.Name} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	h.Write(o.Data)
	var s [sha256.Size]byte
	return binary.BigEndian.Uint64(h.Sum(s[:0])[:8])
}
