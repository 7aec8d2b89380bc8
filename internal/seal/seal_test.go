package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func line(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keyBytes)) + "\n"
}

func mustParse(t *testing.T, text string) *Keys {
	t.Helper()
	k, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSeal checks that what was sealed opens, at its place only, with its key only, unchanged only.
func TestSeal(t *testing.T) {
	one, two := mustParse(t, line(1)), mustParse(t, line(2))
	for _, n := range []int{0, 1, 15, 16, 17, 4096} {
		value := bytes.Repeat([]byte("v"), n)
		sealed, err := one.Seal("/core/secrets/a/b", value)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) != n+Overhead || n > 4 && bytes.Contains(sealed, value[:4]) {
			t.Errorf("%d bytes sealed are %q", n, sealed)
		}
		if id, ok := By(sealed); !ok || id != one.First() {
			t.Errorf("By is %v, %v", id, ok)
		}
		got, err := one.Open("/core/secrets/a/b", sealed)
		if err != nil || !bytes.Equal(got, value) {
			t.Errorf("opened: %q, %v", got, err)
		}
		var forged *ForgedError
		if _, err := one.Open("/core/secrets/a/c", sealed); !errors.As(err, &forged) {
			t.Errorf("opened at another place: %v", err)
		}
		var unknown *UnknownKeyError
		if _, err := two.Open("/core/secrets/a/b", sealed); !errors.As(err, &unknown) || unknown.ID != one.First() {
			t.Errorf("opened with another key: %v", err)
		}
		for i := range sealed { // each byte counts
			bad := bytes.Clone(sealed)
			bad[i] ^= 1
			if got, err := one.Open("/core/secrets/a/b", bad); err == nil {
				t.Fatalf("byte %d changed and opened as %q", i, got)
			}
			if got, err := one.Open("/core/secrets/a/b", sealed[:i]); err == nil {
				t.Fatalf("cut to %d bytes and opened as %q", i, got)
			}
		}
	}
	a, _ := one.Seal("x", []byte("same"))
	b, _ := one.Seal("x", []byte("same"))
	if bytes.Equal(a, b) {
		t.Error("the same value sealed twice is the same")
	}
}

// TestRotation checks that the first key seals, the others still open.
func TestRotation(t *testing.T) {
	old := mustParse(t, line(1))
	sealed, _ := old.Seal("x", []byte("v"))
	both := mustParse(t, "# new since spring\n"+line(2)+"\n"+line(1))
	if got, err := both.Open("x", sealed); err != nil || string(got) != "v" {
		t.Errorf("with the old key second: %q, %v", got, err)
	}
	again, _ := both.Seal("x", []byte("v"))
	if id, _ := By(again); id != mustParse(t, line(2)).First() {
		t.Errorf("sealed with %v", id)
	}
	if _, err := old.Open("x", again); err == nil {
		t.Error("the old key opens what the new one sealed")
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if _, err := ReadFile(write("good", line(1), 0o600)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty": {"\n# nothing\n", "no key"},
		"short": {base64.StdEncoding.EncodeToString(make([]byte, 31)), "line 1 is no key"},
		"typo":  {line(1) + "hunter2!", "line 2 is no key"},
		"twice": {line(1) + line(1), "occurs twice"},
		"large": {strings.Repeat("#\n", maxFile), "more than"},
	} {
		_, err := ReadFile(write(name, c.text, 0o600))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadFile(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "/dev/urandom") {
		t.Errorf("a missing file does not say how to make one: %v", err)
	}
	if runtime.GOOS != "windows" {
		if _, err := ReadFile(write("open", line(1), 0o644)); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a file for everybody: %v", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k, err := parse([]byte(line(1)))
	if err != nil {
		f.Fatal(err)
	}
	good, _ := k.Seal("x", []byte("v"))
	f.Add(good)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := k.Open("x", b); err == nil && !bytes.Equal(b, good) {
			t.Errorf("opened %q as %q", b, v)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	k, _ := parse([]byte(line(1)))
	sealed, _ := k.Seal("x", make([]byte, 2048))
	for b.Loop() {
		if _, err := k.Open("x", sealed); err != nil {
			b.Fatal(err)
		}
	}
}
