package cache

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"petrel.dev/petrel/internal/seal/sealtest"
	"petrel.dev/petrel/internal/wire"
)

// TestEncrypted checks that with a key no Secret of the desired set is on the disk in clear, also what was there before; the
// set comes back with the key, an older key can be dropped after a start, and without the right key the error names the one
// that is needed.
func TestEncrypted(t *testing.T) {
	dir := t.TempDir()
	const secret = "the secret of a pod"
	put := func(uid string) wire.Put {
		o := wire.Object{ID: wire.ID{Kind: wire.KindSecret, UID: uid}, Namespace: "default", Name: uid, Data: []byte(secret + " " + uid)}
		o.Version = wire.ContentVersion(&o)
		return wire.Put{Object: o}
	}
	var want []string
	step := func(letters, add string) {
		t.Helper()
		c, err := Open(dir, sealtest.Keys(t, letters), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if add != "" {
			if _, err := c.Apply(&wire.Batch{Puts: []wire.Put{put(add)}, Revision: uint64(len(want) + 1)}); err != nil {
				t.Fatal(err)
			}
			want = append(want, add)
		}
		if c.Revision() != uint64(len(want)) || len(c.Desired()) != len(want) {
			t.Errorf("with %q: revision %d, %d objects; want %d", letters, c.Revision(), len(c.Desired()), len(want))
		}
		for i, o := range c.Desired() {
			if string(o.Data) != secret+" "+want[i] {
				t.Errorf("with %q: object %d is %q", letters, i, o.Data)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	clear := func() bool {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "desired.log"))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(b, []byte(secret))
	}
	step("", "a")
	if !clear() {
		t.Fatal("this test looks for the wrong text")
	}
	step("k", "")
	if clear() {
		t.Error("what was there in clear still is")
	}
	step("k", "b")
	step("k", "")
	if clear() {
		t.Error("a Secret is on the disk in clear")
	}
	for _, letters := range []string{"", "x"} {
		_, err := Open(dir, sealtest.Keys(t, letters), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), sealtest.Keys(t, "k").First().String()) || !strings.Contains(err.Error(), "--cache-key-file") {
			t.Errorf("with the keys %q: %v", letters, err)
		}
	}
	step("nk", "")
	step("n", "c")
	step("n", "")
}
