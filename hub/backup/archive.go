package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/durable"
)

// Names in an archive, and in a hub's data directory.
const (
	manifestName = "petrel-backup.json"
	storeName    = "hub.db"
	secretsName  = "secrets.key"
	pkiName      = "pki"
)

// format of archives that this Petrel writes. A reader refuses higher ones.
const format = 1

// Manifest says what an archive holds.
type Manifest struct {
	Format   int       `json:"format"`
	Petrel   string    `json:"petrel"` // the version that wrote it
	Created  time.Time `json:"created"`
	Revision int64     `json:"revision"` // of the store
	Files    []File    `json:"files"`
}

// File is one file of an archive.
type File struct {
	Name   string `json:"name"` // relative to the data directory, with slashes
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Source is a hub's data directory.
type Source struct {
	DataDir string
	// Snapshot writes a snapshot of the store to path, which does not exist, and returns its revision.
	Snapshot func(ctx context.Context, path string) (int64, error)
	// Progress is called with how many bytes of the store are in the archive, of how many; nil: nobody asks.
	Progress func(done, total int64)
}

// snapshotTries bounds how often a snapshot is taken again because the key of Secrets changed meanwhile.
const snapshotTries = 3

// Write writes an archive to path, mode 0600, encrypted for recipients if there are any. An existing file is replaced only by a complete, durable
// one. Beside it there must be room for a copy of the store, which is removed at the end.
func (s Source) Write(ctx context.Context, path string, recipients ...age.Recipient) (_ Manifest, err error) {
	staged, err := os.MkdirTemp(filepath.Dir(path), ".petrel-backup-")
	if err != nil {
		return Manifest{}, fmt.Errorf("backup: %w", err)
	}
	defer func() {
		if clean := os.RemoveAll(staged); err == nil {
			err = clean
		}
	}()
	m := Manifest{Format: format, Petrel: buildinfo.Get().Version, Created: time.Now().UTC().Truncate(time.Second)}
	store := filepath.Join(staged, storeName)
	for try := 1; ; try++ {
		before := s.read(secretsName)
		if m.Revision, err = s.Snapshot(ctx, store); err != nil {
			return m, fmt.Errorf("backup: %w", err)
		}
		if bytes.Equal(before, s.read(secretsName)) {
			break
		}
		if err := os.Remove(store); err != nil {
			return m, err
		}
		if try == snapshotTries {
			return m, fmt.Errorf("backup: %s changes all the time: try again when its rotation has ended", filepath.Join(s.DataDir, secretsName))
		}
	}
	keys, err := s.keys()
	if err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	sum, size, err := digest(store)
	if err != nil {
		return m, err
	}
	m.Files = append(m.Files, File{storeName, size, sum})
	for _, k := range keys {
		m.Files = append(m.Files, k.file)
	}
	out := filepath.Join(staged, "archive")
	if err := writeFile(out, func(w io.Writer) error { return s.pack(ctx, w, m, store, keys, recipients) }); err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	if err := durable.Rename(out, path); err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	return m, nil
}

// read returns a small file of the data directory, nil when it cannot be read.
func (s Source) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(s.DataDir, name))
	if err != nil {
		return nil
	}
	return b
}

// key is a file that is archived from memory: keys are small, and change as a whole.
type key struct {
	file File
	data []byte
}

// maxKeyFile bounds a file of keys in bytes.
const maxKeyFile = 1 << 20

// keys reads the files of keys in the data directory, in the order of their names.
func (s Source) keys() (out []key, err error) {
	add := func(path string) error {
		fi, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		if fi.Size() > maxKeyFile {
			return fmt.Errorf("%s has %d bytes and is no file of keys: move it out of the hub's directory", path, fi.Size())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.DataDir, path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		out = append(out, key{File{filepath.ToSlash(name), int64(len(data)), hex.EncodeToString(sum[:])}, data})
		return nil
	}
	err = filepath.WalkDir(filepath.Join(s.DataDir, pkiName), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return add(path)
	})
	if err == nil {
		err = add(filepath.Join(s.DataDir, secretsName))
	}
	return out, err
}

// pack writes the archive itself.
func (s Source) pack(ctx context.Context, w io.Writer, m Manifest, store string, keys []key, recipients []age.Recipient) error {
	closers := []io.Closer{}
	if len(recipients) > 0 {
		sealed, err := age.Encrypt(w, recipients...)
		if err != nil {
			return err
		}
		w, closers = sealed, append(closers, sealed)
	}
	// One goroutine and a window of 1 MiB: a backup has time, and a board has little memory.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	closers = append(closers, z, t)
	head, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	add := func(name string, size int64, r io.Reader) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: m.Created}); err != nil {
			return err
		}
		_, err := io.Copy(t, cancelled{ctx, r})
		return err
	}
	if err := add(manifestName, int64(len(head)), bytes.NewReader(head)); err != nil {
		return err
	}
	f, err := os.Open(store)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := add(storeName, m.Files[0].Size, &counted{r: f, total: m.Files[0].Size, report: s.Progress}); err != nil {
		return err
	}
	for _, k := range keys {
		if err := add(k.file.Name, k.file.Size, bytes.NewReader(k.data)); err != nil {
			return err
		}
	}
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i].Close(); err != nil {
			return err
		}
	}
	return nil
}

// cancelled reads from r until ctx ends.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// counted reports how much of r has been read.
type counted struct {
	r           io.Reader
	done, total int64
	report      func(done, total int64) // may be nil
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	if c.report != nil {
		c.report(c.done, c.total)
	}
	return n, err
}

// writeFile makes path, which does not exist, of what write writes, durably.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// digest returns a file's SHA-256 in hexadecimal, and its size.
func digest(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
