package seal

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKeyFileSteps checks what each step of a rotation leaves in the file, and that a step for a key that is not the first any more
// changes nothing.
func TestKeyFileSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); err == nil {
		t.Error("a key file was overwritten")
	}
	read := func() *Keys {
		t.Helper()
		k, err := ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := read().First()
	if err := os.WriteFile(path, append([]byte("# of 2026\n"), mustRead(t, path)...), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := AddKey(path)
	if err != nil || second == first {
		t.Fatal(err)
	}
	if k := read(); k.First() != second || k.Len() != 2 || !k.Has(first) {
		t.Errorf("after AddKey: %v", k.ids)
	}
	at := time.Date(2026, 11, 28, 20, 0, 0, 0, time.UTC)
	for _, id := range []KeyID{first, second} { // only what is sealed by the first key of the file counts
		want := id == second
		if err := MarkSealed(path, id, at); err != nil {
			t.Fatal(err)
		}
		if since, ok, err := SealedSince(path); err != nil || ok != want || ok && !since.Equal(at) {
			t.Errorf("marked for %s: %s, %v, %v", id, since, ok, err)
		}
	}
	if err := DropOld(path, first); err != nil || read().Len() != 2 {
		t.Errorf("dropped for another key: %v", err)
	}
	if err := DropOld(path, second); err != nil {
		t.Fatal(err)
	}
	if k := read(); k.Len() != 1 || k.First() != second || !strings.Contains(string(mustRead(t, path)), "# of 2026") {
		t.Errorf("after DropOld: %s", mustRead(t, path))
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	third, err := AddKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := SealedSince(path); ok || read().First() != third {
		t.Error("the mark of the key before is still there")
	}
}

// TestConcurrentEdits checks that no key is lost when several processes edit one file.
func TestConcurrentEdits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ids := make([]KeyID, 8)
	for i := range ids {
		wg.Go(func() {
			id, err := AddKey(path)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
			if err := MarkSealed(path, id, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	k, err := ReadFile(path)
	if err != nil || k.Len() != len(ids)+1 {
		t.Fatalf("%v, %v", k.ids, err)
	}
	for _, id := range ids {
		if !k.Has(id) {
			t.Errorf("key %s is lost", id)
		}
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
