package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A delta makes new content of old: copies of ranges of the old, and bytes of its own. It is a list of steps, each a varint:
//
//	length<<1     and the offset in the old content as a varint: copy so many bytes from there
//	length<<1 | 1 and so many bytes: these
//
// Content is cut before each '{': the objects of a JSON list, such as the endpoints of a Service, stay whole wherever they
// move. Other content comes out right as well, and may come out large.

// makeDelta returns a delta from old to now.
func makeDelta(old, now []byte) []byte {
	where := make(map[string]int, len(old)/48+1)
	for at := 0; at < len(old); {
		n := chunk(old[at:])
		where[string(old[at:at+n])] = at
		at += n
	}
	var out, own []byte
	from, length := 0, 0 // a copy that may grow
	flush := func() {
		if length > 0 {
			out = binary.AppendUvarint(out, uint64(length)<<1)
			out = binary.AppendUvarint(out, uint64(from))
			length = 0
		}
		if len(own) > 0 {
			out = binary.AppendUvarint(out, uint64(len(own))<<1|1)
			out = append(out, own...)
			own = own[:0]
		}
	}
	for at := 0; at < len(now); {
		n := chunk(now[at:])
		c := now[at : at+n]
		at += n
		if length > 0 && bytes.HasPrefix(old[from+length:], c) { // what follows is the likely one of several equal chunks
			length += n
			continue
		}
		i, found := where[string(c)]
		switch {
		case found:
			flush()
			from, length = i, n
		case length > 0:
			flush()
			fallthrough
		default:
			own = append(own, c...)
		}
	}
	flush()
	return out
}

// chunk returns the length of the first piece of content that is not empty.
func chunk(b []byte) int {
	if i := bytes.IndexByte(b[1:], '{'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// applyDelta returns what a delta makes of old; it has at most limit bytes.
func applyDelta(old, delta []byte, limit int) ([]byte, error) {
	out := make([]byte, 0, min(limit, len(old)+len(delta)))
	for d := (&decoder{b: delta}); len(d.b) > 0; {
		step := d.uint()
		n := step >> 1
		if step&1 == 1 {
			out = append(out, d.take(n)...)
		} else {
			from := d.uint()
			if from > uint64(len(old)) || n > uint64(len(old))-from || n > uint64(limit) {
				return nil, fmt.Errorf("delta: %w: copies what is not there", ErrFormat)
			}
			out = append(out, old[from:from+n]...)
		}
		switch {
		case d.err != nil:
			return nil, fmt.Errorf("delta: %w", d.err)
		case len(out) > limit:
			return nil, fmt.Errorf("delta: %w: comes to more than %d bytes", ErrFormat, limit)
		}
	}
	return out, nil
}
