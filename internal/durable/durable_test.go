package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

var writers = map[string]func(path string, data []byte, mode fs.FileMode) error{
	"WriteFile":     WriteFile,
	"WriteVolatile": WriteVolatile,
	"Replace": func(path string, data []byte, mode fs.FileMode) error {
		f, err := Replace(path, data, mode)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return err
	},
}

// names lists a directory: nothing else may lie in it than what was asked for.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func expect(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != content {
		t.Errorf("%s holds %q, %v, want %q", path, b, err, content)
	}
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm() != mode {
		t.Errorf("%s has mode %v, want %v", path, fi.Mode(), mode)
	}
	if have := names(t, filepath.Dir(path)); len(have) != 1 {
		t.Errorf("the directory holds %v", have)
	}
}

func TestWritersReplaceAWholeFile(t *testing.T) {
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			for _, step := range []struct {
				content string
				mode    fs.FileMode
			}{{"first, and long", 0o600}, {"second", 0o644}, {"", 0o600}, {"program", 0o555}, {"after a read-only one", 0o666}} {
				if err := write(path, []byte(step.content), step.mode); err != nil {
					t.Fatal(err)
				}
				expect(t, path, step.content, step.mode)
			}
		})
	}
}

// What a power cut left beside the file, or what others put there, has no effect, and goes.
func TestLeftoversGo(t *testing.T) {
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
			path := filepath.Join(dir, "a")
			if err := os.WriteFile(path+suffix, bytes.Repeat([]byte("x"), 1000), 0o444); err != nil {
				t.Fatal(err)
			}
			if err := write(path, []byte("one"), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, path, "one", 0o600)
			if err := os.Symlink(elsewhere, path+suffix); err != nil {
				t.Fatal(err)
			}
			if err := write(path, []byte("two"), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, path, "two", 0o600)
			if _, err := os.Lstat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a link was followed: %v", err)
			}
		})
	}
}

// Errors leave the old content and nothing beside it.
func TestErrorsLeaveTheOld(t *testing.T) {
	broken := errors.New("broken")
	path := filepath.Join(t.TempDir(), "a")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := write(path, []byte("new"), 0o600, func(*os.File) error { return broken }, SyncDir)
	if !errors.Is(err, broken) {
		t.Errorf("a sync that failed: %v", err)
	}
	expect(t, path, "old", 0o600)

	for name, write := range writers {
		dir := filepath.Join(t.TempDir(), "is a directory")
		if err := os.MkdirAll(filepath.Join(dir, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := write(dir, []byte("new"), 0o600); err == nil {
			t.Errorf("%s replaced a directory", name)
		}
		if have := names(t, filepath.Dir(dir)); len(have) != 1 {
			t.Errorf("%s left %v", name, have)
		}
		if err := write(filepath.Join(t.TempDir(), "no", "a"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s in no directory: %v", name, err)
		}
	}
}

// The file is synced when it is complete and before it has its name, the directory afterwards.
func TestOrderOfSyncs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	var order []string
	err := write(path, []byte("new"), 0o644,
		func(f *os.File) error {
			fi, err := f.Stat()
			if err != nil || fi.Size() != 3 || fi.Mode().Perm() != 0o644 {
				t.Errorf("synced with %v, %v", fi, err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Error("the name is there before the content is")
			}
			order = append(order, "file")
			return nil
		},
		func(dir string) error {
			expect(t, path, "new", 0o644)
			order = append(order, dir)
			return nil
		})
	if err != nil || len(order) != 2 || order[0] != "file" || order[1] != filepath.Dir(path) {
		t.Errorf("%v, %v", order, err)
	}
}

func TestReplaceKeepsTheFileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	f, err := Replace(path, []byte("one"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(" more"), 3); err != nil {
		t.Fatal(err)
	}
	expect(t, path, "one more", 0o600)
}

// Writers of one path take turns: the file is always one of theirs, complete.
func TestWritersOfOnePathTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 20 {
				if err := WriteVolatile(path, bytes.Repeat([]byte{byte('a' + n)}, 10_000), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 10_000 || bytes.Count(b, b[:1]) != len(b) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if have := names(t, filepath.Dir(path)); len(have) != 1 {
		t.Errorf("the directory holds %v", have)
	}
	if len(writing) != 0 {
		t.Errorf("paths still held: %v", writing)
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	old, next := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := Rename(old, next); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing to rename: %v", err)
	}
	for _, path := range []string{old, next} {
		if err := WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Rename(old, next); err != nil {
		t.Fatal(err)
	}
	expect(t, next, old, 0o600)
}
