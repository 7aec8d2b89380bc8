// Package archive reads image archives as they come: a plain tar, or one that gzip or zstd has compressed.
//
// What an archive unpacks to is not known before it has been read, and a small file can hold a large one. So the memory
// of a decoder is bounded here, and the bytes that come out are bounded by what the disk has to spare: the reader asks
// for each portion before it goes on.
package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow is the most memory, in bytes, that a zstd stream may ask a decoder for: enough for every level of zstd
	// without --ultra or --long.
	maxWindow = 64 << 20
	// portion is how many bytes are read between two questions for space.
	portion = 8 << 20
)

// ErrFormat is an archive in a format that is not read here; the message says what to do.
var ErrFormat = errors.New("archive format")

// packed names formats that other tools write and that are not read here, by their first bytes.
var packed = []struct {
	magic, name, tool string
}{
	{"\xfd7zXZ\x00", "xz", "xz -dc"},
	{"BZh", "bzip2", "bzip2 -dc"},
	{"\x04\x22\x4d\x18", "lz4", "lz4 -dc"},
	{"PK\x03\x04", "zip", "unzip -p"},
}

// Reader returns the tar in r. spare is called before each portion of it is read and ends the reading with its error; nil
// means that there is no bound. The caller closes the result, and r after it.
func Reader(r io.Reader, spare func() error) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if len(head) == 0 {
		return nil, fmt.Errorf("%w: the archive is empty", ErrFormat)
	}
	for _, p := range packed {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return nil, fmt.Errorf("%w: the archive is compressed with %s, which is not read here; unpack it first, as in \"%s FILE | petrel image import -\"",
				ErrFormat, p.name, p.tool)
		}
	}
	out := &bounded{spare: spare}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrFormat, err)
		}
		out.in, out.close = named{z, "gzip"}, func() { _ = z.Close() }
	case isZstd(head):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrFormat, err)
		}
		out.in, out.close = named{z, "zstd"}, z.Close
	default:
		out.in, out.close = in, func() {}
	}
	return out, nil
}

// isZstd reports whether a stream begins with a zstd frame, or with one to be skipped, as pzstd writes it.
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) ||
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18"))
}

// named says which decoder an error comes from.
type named struct {
	io.Reader
	format string
}

func (n named) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = fmt.Errorf("%w: zstd wants more than %d MiB of memory to unpack this; compress it anew without --ultra and --long", ErrFormat, maxWindow>>20)
	case err != nil && err != io.EOF: // io.EOF itself: readers compare it
		err = fmt.Errorf("%s: %w", n.format, err)
	}
	return k, err
}

// bounded asks for space as it reads.
type bounded struct {
	in    io.Reader
	close func()
	spare func() error
	left  int // bytes of the current portion
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 && b.spare != nil {
		if err := b.spare(); err != nil {
			return 0, err
		}
		b.left = portion
	}
	n, err := b.in.Read(p)
	b.left -= n
	return n, err
}

func (b *bounded) Close() error {
	b.close()
	return nil
}
