package e2e

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"

	"petrel.dev/petrel/test/harness"
)

// TestBinarySize holds what is downloaded over a phone network to its budget: the binary, compressed as `zstd -19` does. What
// it is made of, and what would make it smaller, is in docs/adr/0002-binary-size.md. With containerd, its shim and runc inside
// (docs/adr/0011-single-binary.md) it may have a third more.
func TestBinarySize(t *testing.T) {
	budget := int64(30_000_000)
	if len(harness.Inside()) > 0 {
		budget = 40_000_000
	}
	f, err := elf.Open(harness.Petrel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Section(".symtab") != nil {
		t.Skip("this binary has its symbols; the budget is for the one that `make build` makes (PETREL_BIN)")
	}
	size := quickCompressed(t, harness.Petrel)
	t.Logf("at most %.1f MB compressed", float64(size)/1e6)
	if size > budget { // it may still fit: the quick figure is some 13 % higher
		size = compressed(t, harness.Petrel)
		t.Logf("%.1f MB by zstd -19", float64(size)/1e6)
	}
	if size > budget {
		t.Errorf("the binary has %d bytes compressed, the budget is %d: see what grew with `go tool nm -size -sort size`", size, budget)
	}
}

// quickCompressed returns the size of the file as a faster compressor makes it, in bytes: it is never below that of `zstd -19` in
// practice, in a fifth of the time.
func quickCompressed(t *testing.T, file string) int64 {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size counter
	w, err := zstd.NewWriter(&size, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, f); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return int64(size)
}

// compressed returns the size of the file as `zstd -19` makes it, in bytes.
func compressed(t *testing.T, file string) int64 {
	t.Helper()
	var size counter
	var complaint bytes.Buffer
	cmd := exec.Command("zstd", "-19", "-T0", "--quiet", "--stdout", file)
	cmd.Stdout, cmd.Stderr = &size, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("zstd: %v: %s", err, complaint.Bytes())
	}
	return int64(size)
}

// counter counts the bytes that are written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
