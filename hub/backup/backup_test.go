package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

const store = magicSQLite + " and all objects"

// hubDir is a data directory as a hub has it; its store is a text.
func hubDir(t testing.TB) Source {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"hub.db": store, "secrets.key": "key of Secrets", "pki/ca.key": "the CA", "pki/sa-retired/1.pem": "an old key", "admin.kubeconfig": "made again", "hub.db-wal": "no",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return Source{DataDir: dir, Snapshot: func(_ context.Context, path string) (int64, error) {
		return 7, os.WriteFile(path, []byte(store), 0o600)
	}}
}

// target restores into a directory; its store is any file.
func target(dir string, ids ...age.Identity) Target {
	return Target{DataDir: dir, Identities: ids, Place: func(_ context.Context, path string) error {
		to := filepath.Join(dir, "hub.db")
		if _, err := os.Stat(to); err == nil {
			return fs.ErrExist
		}
		return os.Rename(path, to)
	}}
}

// tree returns the files below dir and their texts.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRoundTrip saves a hub and makes it again elsewhere, in clear and encrypted in both ways.
func TestRoundTrip(t *testing.T) {
	pair, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "passphrase")
	identity := filepath.Join(t.TempDir(), "identity")
	if err := errors.Join(os.WriteFile(secret, []byte("correct horse\nnot this\n"), 0o600), os.WriteFile(identity, []byte("# age\n"+pair.String()+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys                       []string
		sealed, identity, password string
	}{
		"clear":      {},
		"public key": {keys: []string{pair.Recipient().String()}, identity: identity},
		"passphrase": {sealed: secret, password: secret},
	} {
		t.Run(name, func(t *testing.T) {
			from, path := hubDir(t), filepath.Join(t.TempDir(), "archive")
			recipients, err := Recipients(c.keys, c.sealed)
			if err != nil {
				t.Fatal(err)
			}
			m, err := from.Write(t.Context(), path, recipients...)
			if err != nil {
				t.Fatal(err)
			}
			if m.Revision != 7 || len(m.Files) != 4 || m.Files[0].Name != "hub.db" {
				t.Errorf("manifest %+v", m)
			}
			if left := tree(t, filepath.Dir(path)); len(left) != 1 {
				t.Errorf("beside the archive: %v", left)
			}
			if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
				t.Errorf("archive has mode %v", fi.Mode())
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "new")
			if len(recipients) > 0 {
				if _, err := target(dir).Restore(t.Context(), bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "--identity-file") {
					t.Errorf("without a key: %v", err)
				}
			}
			ids, err := Identities(c.identity, c.password)
			if err != nil {
				t.Fatal(err)
			}
			got, err := target(dir, ids...).Restore(t.Context(), bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if got.Revision != 7 {
				t.Errorf("restored manifest %+v", got)
			}
			want := map[string]string{"hub.db": store, "secrets.key": "key of Secrets", "pki/ca.key": "the CA", "pki/sa-retired/1.pem": "an old key"}
			if have := tree(t, dir); fmt.Sprint(have) != fmt.Sprint(want) {
				t.Errorf("restored %v, want %v", have, want)
			}
			// Each bit of it counts, and nothing is in place after an error.
			for _, at := range []int{len(b) / 3, len(b) / 2, len(b) - 1} {
				bad := bytes.Clone(b)
				bad[at] ^= 1
				dir := filepath.Join(t.TempDir(), "bad")
				if _, err := target(dir, ids...).Restore(t.Context(), bytes.NewReader(bad)); err == nil {
					t.Errorf("damage at %d of %d is not seen", at, len(b))
				} else if have := tree(t, dir); len(have) > 0 {
					t.Errorf("after %v there is %v", err, have)
				}
				if _, err := target(dir, ids...).Restore(t.Context(), bytes.NewReader(b[:at])); err == nil {
					t.Errorf("an archive cut off at %d of %d is restored", at, len(b))
				}
			}
		})
	}
}

// TestRestoreBesideOthers shows what happens to keys that are there: the same ones stay, others are an error or set aside.
func TestRestoreBesideOthers(t *testing.T) {
	from, path := hubDir(t), filepath.Join(t.TempDir(), "archive")
	if _, err := from.Write(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	dir := t.TempDir()
	broken := target(dir)
	place := broken.Place
	broken.Place = func(context.Context, string) error { return errors.New("power cut") }
	if _, err := broken.Restore(t.Context(), bytes.NewReader(b)); err == nil {
		t.Fatal("no power cut")
	}
	broken.Place = place
	if _, err := broken.Restore(t.Context(), bytes.NewReader(b)); err != nil {
		t.Errorf("an interrupted restore cannot be repeated: %v", err)
	}
	dir = t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "pki"), 0o700), os.WriteFile(filepath.Join(dir, "pki", "ca.key"), []byte("another CA"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := target(dir).Restore(t.Context(), bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("keys of another hub: %v", err)
	}
	with := target(dir)
	with.Replace = true
	if _, err := with.Restore(t.Context(), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if have := tree(t, dir); have["pki.replaced/ca.key"] != "another CA" || have["pki/ca.key"] != "the CA" {
		t.Errorf("with --replace there is %v", have)
	}
	// A nightly backup is a store alone, for a directory that has the keys.
	os.Remove(filepath.Join(dir, "hub.db"))
	if _, err := target(dir).Restore(t.Context(), strings.NewReader(store)); err != nil {
		t.Error(err)
	}
	if _, err := target(t.TempDir()).Restore(t.Context(), strings.NewReader(store)); err == nil || !strings.Contains(err.Error(), "keys") {
		t.Errorf("a store without keys: %v", err)
	}
	if _, err := target(t.TempDir()).Restore(t.Context(), strings.NewReader("hello")); err == nil {
		t.Error("anything is restored")
	}
}

// forged packs an archive with a manifest and files that no hub writes.
func forged(t testing.TB, m Manifest, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b)
	w := tar.NewWriter(z)
	head, _ := json.Marshal(m)
	for i, text := range append([]string{string(head)}, files...) {
		name := manifestName
		if i > 0 {
			name = m.Files[i-1].Name
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(text))
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestForgedArchives writes nothing outside of what a hub has.
func TestForgedArchives(t *testing.T) {
	for name, m := range map[string]Manifest{
		"outside":    {Format: 1, Files: []File{{Name: "hub.db"}, {Name: "../evil"}}},
		"in the pki": {Format: 1, Files: []File{{Name: "hub.db"}, {Name: "pki/../../evil"}}},
		"absolute":   {Format: 1, Files: []File{{Name: "hub.db"}, {Name: "/etc/evil"}}},
		"another":    {Format: 1, Files: []File{{Name: "hub.db"}, {Name: "evil"}}},
		"twice":      {Format: 1, Files: []File{{Name: "hub.db"}, {Name: "hub.db"}}},
		"no store":   {Format: 1, Files: []File{{Name: "pki/ca.key"}}},
		"newer":      {Format: 2, Files: []File{{Name: "hub.db"}}},
		"huge key":   {Format: 1, Files: []File{{Name: "hub.db"}, {Name: "pki/ca.key", Size: 1 << 40}}},
	} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "data")
		if _, err := target(dir).Restore(t.Context(), bytes.NewReader(forged(t, m, make([]string, len(m.Files))...))); err == nil {
			t.Errorf("%s: restored", name)
		}
		if have := tree(t, parent); len(have) > 0 {
			t.Errorf("%s: there is %v", name, have)
		}
	}
}

// FuzzUnpack looks for a panic, and for a file outside of the directory.
func FuzzUnpack(f *testing.F) {
	f.Add(forged(f, Manifest{Format: 1, Files: []File{{Name: "hub.db", Size: 1}, {Name: "pki/a", Size: 1}}}, "x", "y"))
	f.Add([]byte(magicZstd))
	f.Fuzz(func(t *testing.T, b []byte) {
		parent := t.TempDir()
		_, _ = unpack(bytes.NewReader(b), filepath.Join(parent, "in"))
		for name := range tree(t, parent) {
			if !strings.HasPrefix(name, "in/") {
				t.Errorf("wrote %s", name)
			}
		}
	})
}

// TestKeyThatChanges takes the snapshot again when the key of Secrets is rotated meanwhile.
func TestKeyThatChanges(t *testing.T) {
	from := hubDir(t)
	snapshots := 0
	write := from.Snapshot
	from.Snapshot = func(ctx context.Context, path string) (int64, error) {
		if snapshots++; snapshots == 1 {
			if err := os.WriteFile(filepath.Join(from.DataDir, "secrets.key"), []byte("new"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return write(ctx, path)
	}
	if _, err := from.Write(t.Context(), filepath.Join(t.TempDir(), "archive")); err != nil || snapshots != 2 {
		t.Errorf("%d snapshots, %v", snapshots, err)
	}
}

// TestSchedule runs a week of nights: an archive a night in which something has changed, and the newest three stay.
func TestSchedule(t *testing.T) {
	from, dir := hubDir(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "petrel-photos.tar.zst"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		rev := 1
		s := Schedule{Dir: dir, Cron: "0 4 * * *", Keep: 3, State: func() string { return fmt.Sprint(rev) }, Log: slog.New(slog.DiscardHandler)}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Run(ctx, from) }()
		for night, want := range []int{1, 2, 2, 3, 3, 3} {
			if night != 2 {
				rev++
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if have := s.archives(); len(have) != want {
				t.Errorf("after night %d there are %d archives, want %d", night, len(have), want)
			}
		}
		// What is revoked is not in the store, and counts too.
		if err := os.WriteFile(filepath.Join(from.DataDir, "pki", "revoked"), []byte("a certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := s.archives()[0]
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if s.archives()[0] == before {
			t.Error("changed keys are not saved")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "petrel-photos.tar.zst")); err != nil {
		t.Errorf("another file went: %v", err)
	}
	for _, bad := range []Schedule{{Cron: "tomorrow", Keep: 1}, {Cron: "@daily", Keep: 0}} {
		if bad.Check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
