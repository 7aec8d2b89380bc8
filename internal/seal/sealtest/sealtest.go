// Package sealtest gives tests keys that are the same in each run.
package sealtest

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"petrel.dev/petrel/internal/seal"
)

// Keys reads a key file with one key for each letter, in their order; nil for "".
func Keys(t testing.TB, letters string) *seal.Keys {
	t.Helper()
	if letters == "" {
		return nil
	}
	text := ""
	for _, b := range []byte(letters) {
		text += base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n"
	}
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
