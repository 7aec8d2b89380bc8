// Package seal encrypts values that lie on a disk which can be pulled out: Secrets in the hub's store, a node's cache.
//
//	magic 4 | key id 8 | salt 24 | ciphertext | tag 16
//
// The cipher is AES-256-GCM. Each value has a key and a nonce of its own, drawn by HKDF-SHA-256 from the key file's key and 24
// random bytes, so the number of values under one key needs no count. Additional data binds a value to its place: what is
// sealed for one object does not open as another. What it does not stop: who can write to the disk can put an older
// sealed value of the same object back.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

const (
	keyBytes   = 32
	nonceBytes = 12
	idBytes    = 8
	saltBytes  = 24
	tagBytes   = 16
	headBytes  = len(magic) + idBytes + saltBytes
)

// magic begins each sealed value. No JSON text and no protobuf message begins with it.
const magic = "\x00pS1"

// Overhead is by how many bytes a sealed value is longer than what it holds.
const Overhead = headBytes + tagBytes

// KeyID names a key without revealing anything of it.
type KeyID [idBytes]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// Keys are the keys of one file. The first seals, all of them open. They are immutable.
type Keys struct {
	ids  []KeyID // in the file's order, at least one
	keys map[KeyID][]byte
}

// UnknownKeyError means that a value is sealed with a key that is not there.
type UnknownKeyError struct{ ID KeyID }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("it is encrypted with the key %s, which is not there", e.ID)
}

// ForgedError means that a value was not sealed, or not for this place, with the key that it names.
type ForgedError struct{ ID KeyID }

func (e *ForgedError) Error() string {
	return fmt.Sprintf("it does not open with the key %s: it was changed, cut short or moved here from another place", e.ID)
}

// newKeys makes Keys of at least one key of keyBytes bytes.
func newKeys(keys [][]byte) (*Keys, error) {
	k := &Keys{keys: map[KeyID][]byte{}}
	for _, key := range keys {
		id := idOf(key)
		if _, twice := k.keys[id]; twice {
			return nil, fmt.Errorf("the key %s occurs twice", id)
		}
		k.ids, k.keys[id] = append(k.ids, id), key
	}
	return k, nil
}

func idOf(key []byte) (id KeyID) {
	sum := sha256.Sum256(append([]byte("petrel seal key id\x00"), key...))
	copy(id[:], sum[:])
	return id
}

// First is the id of the key that seals.
func (k *Keys) First() KeyID { return k.ids[0] }

// Has reports whether there is a key with that id.
func (k *Keys) Has(id KeyID) bool {
	_, ok := k.keys[id]
	return ok
}

// Alone returns the first key without the others.
func (k *Keys) Alone() *Keys {
	id := k.First()
	return &Keys{ids: []KeyID{id}, keys: map[KeyID][]byte{id: k.keys[id]}}
}

// Len returns how many keys there are.
func (k *Keys) Len() int { return len(k.ids) }

// Seal encrypts value for the place that data names.
func (k *Keys) Seal(data string, value []byte) ([]byte, error) {
	id := k.First()
	out := make([]byte, headBytes, headBytes+len(value)+tagBytes)
	copy(out, magic)
	copy(out[len(magic):], id[:])
	salt := out[headBytes-saltBytes : headBytes]
	if _, err := rand.Read(salt); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, nonce, err := once(k.keys[id], salt)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return aead.Seal(out, nonce, value, []byte(data)), nil
}

// Open decrypts what Seal made for the same data. Errors: *UnknownKeyError, also of nil Keys, and *ForgedError.
func (k *Keys) Open(data string, sealed []byte) ([]byte, error) {
	id, ok := By(sealed)
	if !ok {
		return nil, &ForgedError{}
	}
	if k == nil {
		return nil, &UnknownKeyError{ID: id}
	}
	key, ok := k.keys[id]
	if !ok {
		return nil, &UnknownKeyError{ID: id}
	}
	if len(sealed) < Overhead {
		return nil, &ForgedError{ID: id}
	}
	aead, nonce, err := once(key, sealed[headBytes-saltBytes:headBytes])
	if err != nil {
		return nil, fmt.Errorf("open sealed value: %w", err)
	}
	// The room of the tag stays free behind the value, for the digits that a store puts into it.
	value, err := aead.Open(make([]byte, 0, len(sealed)-headBytes), nonce, sealed[headBytes:], []byte(data))
	if err != nil {
		return nil, &ForgedError{ID: id}
	}
	return value, nil
}

// By returns the id of the key with which a value is sealed; ok is false for a value in clear.
func By(value []byte) (id KeyID, ok bool) {
	if len(value) < len(magic)+idBytes || string(value[:len(magic)]) != magic {
		return KeyID{}, false
	}
	copy(id[:], value[len(magic):])
	return id, true
}

// once draws the cipher and the nonce of one value.
func once(key, salt []byte) (cipher.AEAD, []byte, error) {
	drawn, err := hkdf.Key(sha256.New, key, salt, "petrel seal value", keyBytes+nonceBytes)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(drawn[:keyBytes])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, drawn[keyBytes:], err
}
