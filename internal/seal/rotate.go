package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"petrel.dev/petrel/internal/durable"
)

// A key is replaced in steps, and the file says how far that has come. After a power cut at any of them all that is encrypted opens.
//
//	AddKey      the new key first, the others behind it       what is written from now on is under the new key
//	MarkSealed  the comment below: since when all is           only backups from before need the others
//	DropOld     the new key alone                              when those backups have gone
const sealedMark = "# all is encrypted with the first key since "

// Create makes a key file with one key, where there is none.
func Create(path string) error {
	line, _, err := newLine()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("key file %s exists", path)
	}
	return writeKeys(path, line+"\n")
}

// AddKey puts a new key before those of a key file, and returns its id.
func AddKey(path string) (KeyID, error) {
	line, id, err := newLine()
	if err != nil {
		return KeyID{}, err
	}
	return id, edit(path, func(lines []string, _ *Keys) []string { return append([]string{line}, unmarked(lines)...) })
}

// MarkSealed notes that all is encrypted with the first key of the file, unless that is another one by now.
func MarkSealed(path string, first KeyID, at time.Time) error {
	return edit(path, func(lines []string, keys *Keys) []string {
		if keys.First() != first {
			return lines
		}
		return append([]string{sealedMark + at.UTC().Format(time.RFC3339)}, unmarked(lines)...)
	})
}

// SealedSince returns when MarkSealed was called for the first key of a file; ok is false when it was not.
func SealedSince(path string) (at time.Time, ok bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("key file: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if mark, is := strings.CutPrefix(strings.TrimSpace(line), sealedMark); is {
			at, err := time.Parse(time.RFC3339, mark)
			return at, err == nil, nil
		}
	}
	return time.Time{}, false, nil
}

// DropOld leaves the first key alone in the file, unless that is another one by now.
func DropOld(path string, first KeyID) error {
	return edit(path, func(lines []string, keys *Keys) []string {
		if keys.First() != first {
			return lines
		}
		var out []string
		seen := false
		for _, l := range lines {
			if isKey := l != "" && !strings.HasPrefix(l, "#"); !isKey || !seen {
				out, seen = append(out, l), seen || isKey
			}
		}
		return out
	})
}

func newLine() (string, KeyID, error) {
	key := make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return "", KeyID{}, fmt.Errorf("make key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(key), idOf(key), nil
}

func unmarked(lines []string) (out []string) {
	for _, l := range lines {
		if !strings.HasPrefix(l, sealedMark) {
			out = append(out, l)
		}
	}
	return out
}

// edit changes the lines of a key file, whose keys must be readable before and after. Two processes edit one after the other: a key that
// one of them has just put there is not lost by the other.
func edit(path string, change func(lines []string, keys *Keys) []string) error {
	if _, err := ReadFile(path); err != nil { // it says what to do about a file that is not there
		return err
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	defer unlock()
	keys, err := ReadFile(path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	after := strings.Join(change(lines, keys), "\n") + "\n"
	if bytes.Equal([]byte(after), text) {
		return nil
	}
	if _, err := parse([]byte(after)); err != nil {
		return fmt.Errorf("key file %s would not be readable: %w", path, err)
	}
	return writeKeys(path, after)
}

func writeKeys(path, text string) error {
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return errors.New("key file " + path + " is no regular file: give the file itself, so that it can be replaced")
	}
	if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	return nil
}
