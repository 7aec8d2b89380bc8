package backup

import (
	"archive/tar"
	"bufio"
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
	"path"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"petrel.dev/petrel/internal/durable"
)

// Limits of what is read of an archive that is not trusted yet.
const (
	maxManifest = 1 << 20
	maxFiles    = 10_000
	maxMemory   = 64 << 20 // of the decompressor
)

// First bytes of the three forms that Restore takes.
const (
	magicAge    = "age-encryption.org/"
	magicZstd   = "\x28\xb5\x2f\xfd"
	magicSQLite = "SQLite format 3\x00"
)

// Target is where a hub is restored.
type Target struct {
	DataDir string
	// Identities decrypt the archive; none for one that is not encrypted.
	Identities []age.Identity
	// Place checks the snapshot at path and makes it the store of the data directory; the last step.
	Place func(ctx context.Context, path string) error
	// Replace sets keys aside that are not those of the archive, as NAME.replaced; without it they are an error.
	Replace bool
}

// Restore reads an archive, or the snapshot of a store as nightly backups are, and makes the data directory that of the hub that was
// saved. After an error nothing is in place, or what is can be repeated.
func (t Target) Restore(ctx context.Context, r io.Reader) (m Manifest, err error) {
	if err := os.MkdirAll(t.DataDir, 0o700); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	staged, err := os.MkdirTemp(t.DataDir, ".restore-")
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	defer os.RemoveAll(staged)
	in := bufio.NewReaderSize(cancelled{ctx, r}, 64<<10)
	head, _ := in.Peek(len(magicAge))
	switch {
	case bytes.HasPrefix(head, []byte(magicAge)):
		if len(t.Identities) == 0 {
			return m, errors.New("restore: the archive is encrypted: give the key that decrypts it (--identity-file, --passphrase-file)")
		}
		open, err := age.Decrypt(in, t.Identities...)
		if err != nil {
			return m, fmt.Errorf("restore: archive cannot be decrypted: %w", err)
		}
		m, err = unpack(open, staged)
		if err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
	case bytes.HasPrefix(head, []byte(magicZstd)):
		if m, err = unpack(in, staged); err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
	case bytes.HasPrefix(head, []byte(magicSQLite)):
		if err := writeFile(filepath.Join(staged, storeName), func(w io.Writer) error { _, err := io.Copy(w, in); return err }); err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
		if _, err := os.Stat(filepath.Join(t.DataDir, pkiName)); err != nil {
			return m, fmt.Errorf("restore: this is a store without the hub's keys (%w): restore it into the data directory of its hub, or restore an archive of `petrel backup`", err)
		}
	default:
		return m, errors.New("restore: this is neither an archive of `petrel backup` nor a backup of a store")
	}
	if err := t.moveKeys(staged); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	if err := t.Place(ctx, filepath.Join(staged, storeName)); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	return m, nil
}

// unpack writes the files of an archive below dir and checks them against its manifest.
func unpack(r io.Reader, dir string) (m Manifest, err error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxMemory))
	if err != nil {
		return m, err
	}
	defer z.Close()
	t := tar.NewReader(z)
	h, err := t.Next()
	if err != nil {
		return m, fmt.Errorf("archive cannot be read: %w", err)
	}
	if h.Name != manifestName {
		return m, fmt.Errorf("archive begins with %.64q: it is none of `petrel backup`", h.Name)
	}
	if err := json.NewDecoder(io.LimitReader(t, maxManifest)).Decode(&m); err != nil {
		return m, fmt.Errorf("manifest of the archive: %w", err)
	}
	if err := m.check(); err != nil {
		return m, err
	}
	for _, f := range m.Files {
		h, err := t.Next()
		if err != nil {
			return m, fmt.Errorf("archive ends before %s: it was cut off (%w)", f.Name, err)
		}
		if h.Name != f.Name || h.Size != f.Size || h.Typeflag != tar.TypeReg {
			return m, fmt.Errorf("archive has %.64q where its manifest has %s", h.Name, f.Name)
		}
		if err := extract(t, dir, f); err != nil {
			return m, err
		}
	}
	// To the end: the last block's checksum and, when encrypted, its authentication are only seen then.
	if _, err := t.Next(); err != io.EOF {
		return m, fmt.Errorf("archive has more than its manifest says (%v)", err)
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		return m, fmt.Errorf("archive was cut off: %w", err)
	}
	return m, nil
}

func extract(r io.Reader, dir string, f File) error {
	to := filepath.Join(dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	sum := sha256.New()
	if err := writeFile(to, func(w io.Writer) error { _, err := io.Copy(io.MultiWriter(w, sum), r); return err }); err != nil {
		return fmt.Errorf("%s of the archive: %w", f.Name, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("%s of the archive is damaged: its SHA-256 is %s and not %.64s", f.Name, got, f.SHA256)
	}
	return nil
}

// check returns what is wrong with a manifest, so that nothing is written but what belongs to a hub.
func (m Manifest) check() error {
	if m.Format < 1 || m.Format > format {
		return fmt.Errorf("archive has format %d (written by Petrel %.32q), this Petrel knows %d: use the Petrel that wrote it, or a newer one", m.Format, m.Petrel, format)
	}
	if len(m.Files) > maxFiles {
		return fmt.Errorf("archive has %d files, more than %d", len(m.Files), maxFiles)
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		inPKI := strings.HasPrefix(f.Name, pkiName+"/") && path.Clean(f.Name) == f.Name && filepath.IsLocal(filepath.FromSlash(f.Name))
		if !inPKI && f.Name != storeName && f.Name != secretsName || seen[f.Name] || f.Size < 0 || f.Name != storeName && f.Size > maxKeyFile {
			return fmt.Errorf("archive has a file that no hub has: %.64q of %d bytes", f.Name, f.Size)
		}
		seen[f.Name] = true
	}
	if !seen[storeName] {
		return fmt.Errorf("archive has no %s", storeName)
	}
	return nil
}

// moveKeys moves the keys that were unpacked to staged into the data directory.
func (t Target) moveKeys(staged string) error {
	for _, name := range []string{pkiName, secretsName} {
		from, to := filepath.Join(staged, name), filepath.Join(t.DataDir, name)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		_, err := os.Lstat(to)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case sameTree(from, to):
			continue
		case !t.Replace:
			return fmt.Errorf("%s exists, and is not that of the archive: restore into an empty data directory, or set what is there aside with --replace", to)
		default:
			if err := setAside(to); err != nil {
				return err
			}
		}
		if err := syncTree(from); err != nil {
			return err
		}
		if err := durable.Rename(from, to); err != nil {
			return err
		}
	}
	return nil
}

// setAside renames path to the first free name of PATH.replaced, PATH.replaced-2 and so on.
func setAside(path string) error {
	aside := path + ".replaced"
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return durable.Rename(path, aside)
		} else if err != nil {
			return err
		}
		aside = fmt.Sprintf("%s.replaced-%d", path, n)
	}
}

// sameTree reports whether all files below a are below b with the same content. b may have more: the hub makes certificates from keys.
func sameTree(a, b string) bool {
	err := filepath.WalkDir(a, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(a, p)
		if err != nil {
			return err
		}
		one, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		other, err := os.ReadFile(filepath.Join(b, rel))
		if err != nil || !bytes.Equal(one, other) {
			return errors.Join(err, fs.ErrExist)
		}
		return nil
	})
	return err == nil
}

// syncTree makes the names in a directory and those below it durable; its files are already.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(p)
	})
}
