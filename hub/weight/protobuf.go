package weight

import "encoding/binary"

// Protobuf returns about how many bytes a body in protobuf takes once it is decoded as of, or some number beyond limit: the
// message lies in an envelope of four bytes and a runtime.Unknown. The error is ErrDeep.
func Protobuf(body []byte, of *Shape, limit int64) (int64, error) {
	const envelope = 4
	if len(body) < envelope {
		return 0, nil
	}
	m := messages{limit: limit}
	err := m.fields(body[envelope:], &Shape{numbers: map[int]*Shape{2: of}}, 0) // field 2 of a runtime.Unknown is the message
	return m.sum, err
}

// messages adds up what the fields of messages weigh.
type messages struct{ sum, limit int64 }

// fields adds the fields of one message. A malformed one ends it, as it ends the decoder.
func (m *messages) fields(b []byte, of *Shape, depth int) error {
	if depth > MaxDepth {
		return ErrDeep
	}
	for len(b) > 0 && m.sum <= m.limit {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return nil
		}
		b = b[n:]
		skip := uint64(0)
		switch tag & 7 {
		case 0:
			if _, n = binary.Uvarint(b); n <= 0 {
				return nil
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 5:
			skip = 4
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil
			}
			if err := m.field(b[n:n+int(size)], of.numbers[int(tag>>3)], depth); err != nil {
				return err
			}
			skip = uint64(n) + size
		default: // groups, which the decoder skips
			continue
		}
		if skip > uint64(len(b)) {
			return nil
		}
		b = b[skip:]
	}
	return nil
}

// field adds a field with a length: a message of the shape of, or bytes.
func (m *messages) field(b []byte, of *Shape, depth int) error {
	m.sum += text
	switch {
	case of == nil:
		return nil
	case of == jsonText:
		n, err := JSON(b, untyped, m.limit)
		m.sum += n
		return err
	case of == untyped:
		return m.fields(b, jsonWithin, depth+1)
	}
	m.sum += 2 * of.size // lists grow to twice of what they need
	return m.fields(b, of, depth+1)
}

// jsonWithin is a message whose first field is JSON, as those of raw types are.
var (
	jsonText   = &Shape{}
	jsonWithin = &Shape{numbers: map[int]*Shape{1: jsonText}}
)
