// Package sign makes signatures that minisign verifies: Ed25519 of the file's BLAKE2b digest, and of a comment that is trusted then.
package sign

import (
	"fmt"
	"io"
	"os"

	"aead.dev/minisign"
)

// Key reads a secret key as minisign keeps it. The password is for a key that is encrypted with one.
func Key(file, password string) (minisign.PrivateKey, error) {
	var key minisign.PrivateKey
	text, err := os.ReadFile(file)
	if err != nil {
		return key, fmt.Errorf("read signing key: %w", err)
	}
	if !minisign.IsEncrypted(text) {
		if err := key.UnmarshalText(text); err != nil {
			return key, fmt.Errorf("read signing key %s: %w", file, err)
		}
		return key, nil
	}
	if password == "" {
		return key, fmt.Errorf("read signing key %s: it is encrypted: give its password in SIGN_PASSWORD", file)
	}
	key, err = minisign.DecryptKey(password, text)
	if err != nil {
		return key, fmt.Errorf("read signing key %s: wrong password, or no key: %w", file, err)
	}
	return key, nil
}

// File writes file.minisig. The trusted comment says what was signed, and no time, so that the same file has the same signature.
func File(key minisign.PrivateKey, file, trusted string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("sign file: %w", err)
	}
	defer f.Close()
	r := minisign.NewReader(f)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("sign file %s: %w", file, err)
	}
	text := r.SignWithComments(key, trusted, fmt.Sprintf("signature from petrel's key %016X", key.ID()))
	if err := os.WriteFile(file+".minisig", text, 0o644); err != nil {
		return fmt.Errorf("write signature: %w", err)
	}
	return nil
}

// Public writes the public key as minisign keeps it, and as `minisign -V -p` and install.sh read it.
func Public(key minisign.PrivateKey, file string) error {
	text, err := key.Public().(minisign.PublicKey).MarshalText()
	if err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	return nil
}
