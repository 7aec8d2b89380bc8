package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"aead.dev/minisign"

	"petrel.dev/petrel/cross-build/pack/sign"
)

// release is one of programs that only note how they are called.
type release struct {
	dir string
	key minisign.PrivateKey
	pub string // as install.sh takes it
}

// architectures are those of a release.
var architectures = []string{"linux-amd64", "linux-arm64", "linux-armv7", "linux-armv6", "linux-riscv64"}

// newRelease makes a signed one.
func newRelease(t *testing.T) *release {
	t.Helper()
	r := &release{dir: t.TempDir()}
	public, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.key, r.pub = key, public.String()
	for _, a := range architectures {
		program := "#!/bin/sh\nif [ \"$1\" = version ]; then echo petrel v1 " + a + "; else echo \"$0\" \"$@\" >>\"$CALLS\"; fi\n"
		r.write(t, "petrel-"+a, []byte(program))
		r.write(t, "petrel-"+a+".tar.gz", archive(t, program))
		zstd := exec.Command("zstd", "-q", "-f", r.file("petrel-"+a), "-o", r.file("petrel-"+a+".zst"))
		if out, err := zstd.CombinedOutput(); err != nil {
			t.Fatalf("zstd: %v: %s", err, out)
		}
	}
	r.sign(t, "petrel v1")
	return r
}

func (r *release) file(name string) string { return filepath.Join(r.dir, name) }

func (r *release) write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(r.file(name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sign writes digests of what is there, and their signature.
func (r *release) sign(t *testing.T, comment string) {
	t.Helper()
	names, err := filepath.Glob(r.file("petrel-*"))
	if err != nil {
		t.Fatal(err)
	}
	var sums bytes.Buffer
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), filepath.Base(name))
	}
	r.write(t, "SHA256SUMS", sums.Bytes())
	if err := sign.File(r.key, r.file("SHA256SUMS"), comment); err != nil {
		t.Fatal(err)
	}
}

func archive(t *testing.T, program string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, text := range map[string]string{"./LICENSE": "Apache", "./petrel": program} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
