package celbound

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// replaced returns the bytes of text.replace(old, new[, n]).
func replaced(args []ref.Val, _ int64) int64 {
	if len(args) < 3 {
		return 0
	}
	text, ok := args[0].(types.String)
	before, ok1 := args[1].(types.String)
	after, ok2 := args[2].(types.String)
	if !ok || !ok1 || !ok2 {
		return 0
	}
	count := int64(strings.Count(string(text), string(before)))
	if len(args) > 3 {
		if n, ok := args[3].(types.Int); ok && n >= 0 {
			count = min(count, int64(n))
		}
	}
	// No overflow: each text has been held in memory, and has less than 2^31 bytes.
	return int64(len(text)) + count*(int64(len(after))-int64(len(before)))
}

// joined returns the bytes of list.join([separator]).
func joined(args []ref.Val, limit int64) (n int64) {
	list, ok := args[0].(traits.Lister)
	if !ok {
		return 0
	}
	var separator int64
	if len(args) > 1 {
		if s, ok := args[1].(types.String); ok {
			separator = int64(len(s))
		}
	}
	first := true
	for it := list.Iterator(); it.HasNext() == types.True && n <= limit; first = false {
		if !first {
			n += separator
		}
		if s, ok := it.Next().(types.String); ok {
			n += int64(len(s))
		}
	}
	return n
}

// formatted returns the most bytes that text.format(list) can have.
func formatted(args []ref.Val, limit int64) int64 {
	if len(args) < 2 {
		return 0
	}
	text, ok := args[0].(types.String)
	list, ok1 := args[1].(traits.Lister)
	if !ok || !ok1 {
		return 0
	}
	n, hex := clauses(string(text), limit)
	n += int64(len(text))
	for it := list.Iterator(); it.HasNext() == types.True && n <= limit; {
		size := printed(it.Next(), limit-n, false)
		if hex {
			size *= 2
		}
		n += size
	}
	return n
}

// clauses returns the sum of the precisions that a text for format asks for, and whether it asks for hexadecimal digits, which a text
// has twice as many of as bytes.
func clauses(text string, limit int64) (precisions int64, hex bool) {
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			continue
		}
		if i++; i == len(text) {
			break
		}
		if text[i] == 'x' || text[i] == 'X' {
			hex = true
		}
		if text[i] != '.' {
			continue // "%%" too: its second one opens no clause
		}
		end := i + 1
		for end < len(text) && '0' <= text[end] && text[end] <= '9' {
			end++
		}
		p, err := strconv.ParseInt(text[i+1:end], 10, 64)
		switch {
		case end == i+1: // the function refuses it
		case err != nil || p > limit:
			return limit + 1, hex
		default:
			if precisions += p; precisions > limit {
				return precisions, hex
			}
		}
		i = end - 1
	}
	return precisions, hex
}

// numberBytes bounds the digits of a number, a time or a duration in any base.
const numberBytes = 66

// printed returns the most bytes that format prints a value with. It stops counting above limit: lists that share their elements can be
// exponentially larger than what they were made of. quoted says that the value stands in a list or map, where texts have quotes.
func printed(v ref.Val, limit int64, quoted bool) (n int64) {
	switch v := v.(type) {
	case types.String:
		if quoted {
			return quote(string(v))
		}
		return int64(len(v))
	case types.Bytes:
		if quoted {
			return 1 + quote(string(v))
		}
		return int64(len(v))
	case types.Double:
		if math.Abs(float64(v)) < 1e21 {
			return numberBytes
		}
		return numberBytes + 309 + 103 // the digits before the point of the largest, and commas between them
	case traits.Mapper:
		n = 2
		for it := v.Iterator(); it.HasNext() == types.True && n <= limit; {
			key := it.Next()
			n += 3 + printed(key, limit-n, true)
			if value, ok := v.Find(key); ok && n <= limit {
				n += printed(value, limit-n, true)
			}
		}
		return n
	case traits.Lister:
		n = 2
		for it := v.Iterator(); it.HasNext() == types.True && n <= limit; {
			n += 2 + printed(it.Next(), limit-n, true)
		}
		return n
	case *types.Type:
		return int64(len(v.TypeName())) + numberBytes
	}
	return numberBytes
}

// quote returns the most bytes that text has when it is quoted as in Go.
func quote(text string) (n int64) {
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			n += 2
		case r == utf8.RuneError: // or a byte that is none
			n += 4
		case strconv.IsPrint(r):
			n += int64(utf8.RuneLen(r))
		case r < 0x80:
			n += 4
		default:
			n += 10
		}
	}
	return n + 2
}

// flattened returns how many items list.flatten([depth]) has and passes.
func flattened(args []ref.Val, limit int64) int64 {
	list, ok := args[0].(traits.Lister)
	if !ok {
		return 0
	}
	depth := int64(1)
	if len(args) > 1 {
		if d, ok := args[1].(types.Int); ok {
			depth = int64(d)
		}
	}
	return items(list, depth, limit)
}

// items counts the elements of list, and those of the lists in it down to depth, until there are more than limit.
func items(list traits.Lister, depth, limit int64) (n int64) {
	for it := list.Iterator(); it.HasNext() == types.True && n <= limit; {
		n++
		if inner, ok := it.Next().(traits.Lister); ok && depth > 0 {
			n += items(inner, depth-1, limit-n)
		}
	}
	return n
}

// ranged returns how many items lists.range(n) has.
func ranged(args []ref.Val, _ int64) int64 {
	n, _ := args[0].(types.Int)
	return int64(n)
}
