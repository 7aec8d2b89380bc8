package weight

// level is a CBOR map or array that is open.
type level struct {
	left    uint64 // items to come, keys and values each; with endless: since its begin, odd where a value is next
	endless bool   // ends with a break
	list    bool
}

// CBOR returns about how many bytes body takes once it is decoded as of, or some number beyond limit. What is nested too deep is the
// decoder's to refuse.
func CBOR(body []byte, of *Shape, limit int64) int64 {
	s := scale{next: of}
	var levels []level
	for len(body) > 0 && s.sum <= limit {
		h, rest, ok := headOf(body)
		if !ok {
			return s.sum
		}
		body = rest
		isKey := false
		if n := len(levels); n > 0 && !h.is(7, 31) && h.major != 6 {
			l := &levels[n-1]
			isKey = !l.list && l.left%2 == 0
			if l.endless {
				l.left++
			} else {
				l.left--
			}
		}
		switch h.major {
		case 2, 3:
			var piece []byte
			if piece, body, ok = h.bytes(body); !ok {
				return s.sum
			}
			if isKey {
				s.key(piece)
			} else {
				s.value(false)
			}
		case 4, 5:
			if isKey { // which the decoder refuses
				return s.sum
			}
			s.value(true)
			if s.open(h.major == 4) != nil {
				return s.sum
			}
			l := level{left: h.value, endless: h.info == 31, list: h.major == 4}
			if h.major == 5 {
				l.left *= 2
			}
			if l.endless {
				l.left = 0
			}
			levels = append(levels, l)
		case 6: // a tag: the item follows
			continue
		default:
			switch {
			case h.is(7, 31):
				levels = levels[:max(0, len(levels)-1)]
				s.close()
			case isKey:
				s.key(nil)
			default:
				s.value(false)
			}
		}
		for n := len(levels); n > 0 && !levels[n-1].endless && levels[n-1].left == 0; n-- {
			levels = levels[:n-1]
			s.close()
		}
	}
	return s.sum
}

// head is the beginning of a CBOR item.
type head struct {
	major, info byte
	value       uint64 // its number; 0 for an item of no known length
}

func (h head) is(major, info byte) bool { return h.major == major && h.info == info }

// headOf returns the head that b begins with and what follows; false when it is not whole.
func headOf(b []byte) (h head, rest []byte, ok bool) {
	h = head{major: b[0] >> 5, info: b[0] & 31}
	b = b[1:]
	switch {
	case h.info < 24:
		h.value = uint64(h.info)
	case h.info <= 27:
		n := 1 << (h.info - 24)
		if len(b) < n {
			return h, nil, false
		}
		for _, c := range b[:n] {
			h.value = h.value<<8 | uint64(c)
		}
		b = b[n:]
	}
	return h, b, true
}

// bytes returns the text or bytes of which h is the head, and what follows; false when they are not whole.
func (h head) bytes(b []byte) (text, rest []byte, ok bool) {
	if h.info != 31 {
		if h.value > uint64(len(b)) {
			return nil, nil, false
		}
		return b[:h.value], b[h.value:], true
	}
	for len(b) > 0 { // in pieces
		piece, after, ok := headOf(b)
		switch {
		case !ok:
			return nil, nil, false
		case piece.is(7, 31):
			return text, after, true
		case piece.major != h.major || piece.info == 31 || piece.value > uint64(len(after)):
			return nil, nil, false
		}
		text, b = append(text, after[:piece.value]...), after[piece.value:]
	}
	return nil, nil, false
}
