package wire

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Below this a message is not worth compressing; from here on its packed form says how large it will be.
const packFrom = 256

// One encoder and one decoder work at a time, made on first use, with small windows. An encoder has more than a megabyte: it goes with the second
// collection after its last message, so that a process at rest holds none.
var (
	packing sync.Mutex
	packers = sync.Pool{New: func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10),
			zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	}}
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
	packing.Lock()
	defer packing.Unlock()
	e := packers.Get().(*zstd.Encoder)
	defer packers.Put(e)
	if p := e.EncodeAll(b, make([]byte, 0, len(b)/2)); len(p) < len(b) {
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
