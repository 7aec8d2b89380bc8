package wire

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Below this a message is not worth compressing; from here on its packed form says how large it will be.
const packFrom = 256

// One encoder and one decoder for the process, made on first use, with small windows: an idle agent holds none, and a
// busy hub works on one message at a time.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10),
			zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxMessage))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// pack compresses b when that makes it smaller.
func pack(b []byte) (packed []byte, compressed bool) {
	if len(b) < packFrom {
		return b, false
	}
	if p := packer().EncodeAll(b, make([]byte, 0, len(b)/2)); len(p) < len(b) {
		return p, true
	}
	return b, false
}

// unpack gives what pack was given, when that is no larger than limit. Packed bytes that do not say how large they are do
// not come from pack.
func unpack(b []byte, limit int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil || !h.HasFCS || h.FrameContentSize > uint64(limit) {
		return nil, fmt.Errorf("unpack: %w: not packed, or larger than %d bytes", ErrFormat, limit)
	}
	p, err := unpacker().DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w: %v", ErrFormat, err)
	}
	if len(p) > limit {
		return nil, fmt.Errorf("unpack: %w: larger than %d bytes", ErrFormat, limit)
	}
	return p, nil
}
