package archive

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func gz(t *testing.T, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t *testing.T, b []byte, opts ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// TestFormats checks that the same bytes come out whatever they were packed in; what is not read says how to unpack it.
func TestFormats(t *testing.T) {
	tar := bytes.Repeat([]byte("busybox\x00\x01"), 30_000)
	half := func(b []byte) []byte { return b[:len(b)/2] }
	for _, c := range []struct {
		name string
		in   []byte
		want string // of the error; empty: none
	}{
		{"plain", tar, ""},
		{"gzip", gz(t, tar), ""},
		{"gzip twice", append(gz(t, tar[:9]), gz(t, tar[9:])...), ""}, // as pigz and cat make them
		{"zstd", zst(t, tar), ""},
		{"zstd behind a skippable frame", append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"), zst(t, tar)...), ""},
		{"zstd at its best", zst(t, tar, zstd.WithEncoderLevel(zstd.SpeedBestCompression)), ""},
		{"xz", append([]byte("\xfd7zXZ\x00"), tar...), "xz -dc FILE | petrel image import -"},
		{"bzip2", append([]byte("BZh9"), tar...), "bzip2 -dc FILE"},
		{"cut gzip", half(gz(t, tar)), "gzip: unexpected EOF"},
		{"cut zstd", half(zst(t, tar)), "zstd: unexpected EOF"},
		{"empty", nil, "the archive is empty"},
	} {
		r, err := Reader(bytes.NewReader(c.in), nil)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && !bytes.Equal(got, tar):
			t.Errorf("%s: %d bytes came out, want the %d that went in", c.name, len(got), len(tar))
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
	}
}

// zeros is an endless run of them, which compresses a thousandfold.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestBomb checks that a small archive that unpacks to a large one ends where the disk has no more to spare.
func TestBomb(t *testing.T) {
	in, out := io.Pipe()
	defer in.Close()
	go func() {
		w := gzip.NewWriter(out)
		_, err := io.CopyN(w, zeros{}, 1<<30)
		out.CloseWithError(errors.Join(err, w.Close()))
	}()
	full, asked := errors.New("no space to spare"), 0
	r, err := Reader(in, func() error {
		if asked++; asked > 3 {
			return full
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if !errors.Is(err, full) || n > 4*portion {
		t.Errorf("%d bytes came out, then: %v", n, err)
	}
}

// TestWindow checks that a zstd stream cannot ask for more memory than the bound.
func TestWindow(t *testing.T) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(256<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, 1<<20); err != nil || w.Flush() != nil || w.Close() != nil {
		t.Fatal(err)
	}
	r, err := Reader(&b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "--long") {
		t.Errorf("a window of 256 MiB: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x1f\x8b"))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Add([]byte("\x50\x2a\x4d\x18"))
	f.Fuzz(func(t *testing.T, b []byte) {
		left := 8
		r, err := Reader(bytes.NewReader(b), func() error {
			if left--; left < 0 {
				return errors.New("enough")
			}
			return nil
		})
		if err == nil {
			_, _ = io.Copy(io.Discard, r)
			r.Close()
		}
	})
}
