package seal

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// maxFile bounds a key file, in bytes: some hundred keys.
const maxFile = 16 << 10

// Make is the command that makes a key file, for texts.
func Make(path string) string {
	return fmt.Sprintf("(umask 077 && head -c %d /dev/urandom | base64 > %s)", keyBytes, path)
}

// ReadFile reads a key file: a line for each key, 32 random bytes in base64; empty lines and those that begin with # are
// passed over. The first key seals, all of them open. The file must be readable by its owner alone.
func ReadFile(path string) (*Keys, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file %s does not exist; restore it, or, when nothing is encrypted yet, make it with: %s, and keep a copy away from this machine: without it nobody can read what it encrypts",
			path, Make(path))
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is no regular file", path)
	}
	if m := fi.Mode().Perm(); m&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("key file %s can be opened by others than its owner (mode %#o): chmod 600 it", path, m)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	keys, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return keys, nil
}

// parse never quotes the text in its errors: it may be a key with a typing error in it.
func parse(text []byte) (*Keys, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	var keys [][]byte
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d is no key: %d bytes in base64, as this makes: head -c %d /dev/urandom | base64", n, keyBytes, keyBytes)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key")
	}
	return newKeys(keys)
}
