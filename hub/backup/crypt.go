package backup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/age"
)

// workFactor of passphrases: 2^15 rounds of scrypt take 32 MiB, which a small board has; a restore accepts what other tools choose.
const workFactor = 15

// Recipients returns those of age public keys (age1…) and of the passphrase in a file, which are not used together.
func Recipients(keys []string, passphraseFile string) (out []age.Recipient, err error) {
	for _, k := range keys {
		parsed, err := age.ParseRecipients(strings.NewReader(k))
		if err != nil {
			return nil, fmt.Errorf("%q is no public key of age, such as age1… that age-keygen prints: %w", k, err)
		}
		out = append(out, parsed...)
	}
	if passphraseFile == "" {
		return out, nil
	}
	if len(out) > 0 {
		return nil, errors.New("a backup is encrypted with a passphrase or for public keys, not both")
	}
	secret, err := passphrase(passphraseFile)
	if err != nil {
		return nil, err
	}
	r, err := age.NewScryptRecipient(secret)
	if err != nil {
		return nil, err
	}
	r.SetWorkFactor(workFactor)
	return []age.Recipient{r}, nil
}

// Identities returns what decrypts: the secret keys in a file as age-keygen writes it, and the passphrase in another.
func Identities(identityFile, passphraseFile string) (out []age.Identity, err error) {
	if identityFile != "" {
		b, err := os.ReadFile(identityFile)
		if err != nil {
			return nil, err
		}
		if out, err = age.ParseIdentities(bytes.NewReader(b)); err != nil {
			return nil, fmt.Errorf("%s: %w", identityFile, err)
		}
	}
	if passphraseFile != "" {
		secret, err := passphrase(passphraseFile)
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(secret)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// passphrase returns the first line of a file.
func passphrase(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: its first line is empty, and should be the passphrase", file)
	}
	return line, nil
}
