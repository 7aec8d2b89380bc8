package weight

import (
	"bytes"
	"encoding/json"
	"strings"
)

// JSON returns about how many bytes body takes once it is decoded as of, or some number beyond limit. The error is ErrDeep.
func JSON(body []byte, of *Shape, limit int64) (int64, error) {
	s := scale{next: of}
	for i := 0; i < len(body) && s.sum <= limit; i++ {
		switch c := body[i]; c {
		case '{', '[':
			s.value(true)
			if err := s.open(c == '['); err != nil {
				return s.sum, err
			}
		case '}', ']':
			s.close()
		case '"':
			end := stringEnd(body, i+1)
			if rest := bytes.TrimLeft(body[min(end+1, len(body)):], " \t\r\n"); len(rest) > 0 && rest[0] == ':' {
				s.key(unquoted(body[i:min(end+1, len(body))]))
			} else {
				s.value(false)
			}
			i = end
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			s.value(false)
			for i+1 < len(body) && strings.IndexByte(" \t\r\n,:{}[]\"", body[i+1]) < 0 {
				i++
			}
		}
	}
	return s.sum, nil
}

// stringEnd returns the index of the quote that ends the string that begins at i, or the length of body.
func stringEnd(body []byte, i int) int {
	for i < len(body) {
		n := bytes.IndexByte(body[i:], '"')
		if n < 0 {
			return len(body)
		}
		i += n
		escapes := 0
		for body[i-escapes-1] == '\\' { // ends at the quote before the string at the latest
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
		i++
	}
	return len(body)
}

// unquoted returns the name that a key in JSON stands for.
func unquoted(quoted []byte) []byte {
	if len(quoted) < 2 {
		return nil
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return nil
	}
	return []byte(name)
}
