package media

import (
	"bytes"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// TestCheckCBOR checks that a bomb of empty maps is refused, whatever surrounds it, and that nothing of a real object is taken for one.
func TestCheckCBOR(t *testing.T) {
	encode := func(v any) []byte {
		b, err := direct.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	full := make([]any, maxCollections-2) // beside them: the array itself, and the map around it
	for i := range full {
		full[i] = map[string]any{}
	}
	bomb := append([]byte{0xa1, 0x61, 'a', 0x9f}, append(bytes.Repeat([]byte{0xa0}, 3<<20-16), 0xff)...)
	for name, test := range map[string]struct {
		body    []byte
		refused bool
	}{
		"maps in an array of no known length": {bomb, true},
		"arrays in arrays":                    {bytes.Repeat([]byte{0x81}, 1<<20), true},
		"as many as may be":                   {encode(map[string]any{"a": full}), false},
		"one more":                            {encode(map[string]any{"a": append(full, []any{})}), true},
		"text that looks like maps":           {encode(map[string]any{"a": strings.Repeat("\x00", 1<<20), "b": bytes.Repeat([]byte{0xa0}, 1<<20)}), false},
		"numbers":                             {encode([]any{1, 24, 256, 1 << 20, int64(1) << 40, -1.5, true, nil}), false},
		"a text that ends early":              {[]byte{0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xa0}, false},
		"a head that ends early":              {[]byte{0x9b, 0xff}, false},
		"nothing":                             {nil, false},
	} {
		err := CheckCBOR(test.body)
		if (err != nil) != test.refused || err != nil && !apierrors.IsRequestEntityTooLargeError(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
