package structural

import (
	"strings"
	"testing"
)

// TestDefaultsAreBounded checks that a small body which its defaults make a large object is refused before it is written: 60 KB of it
// took a gigabyte.
func TestDefaultsAreBounded(t *testing.T) {
	crd, err := withSchema(`{"type":"object","properties":{"a":{"type":"array","items":{"type":"object","properties":{"b":{"type":"string","default":"` + strings.Repeat("x", 10_000) + `"}}}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(crd, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for n, refused := range map[int]bool{100: false, 20_000: true} {
		list := make([]any, n)
		for i := range list {
			list[i] = map[string]any{}
		}
		obj := map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "a": list}
		s.Default(obj)
		errs := s.Validate(t.Context(), obj, nil)
		if (len(errs) > 0) != refused || refused && !strings.Contains(errs[0].Error(), "with its defaults") {
			t.Errorf("%d defaults of 10 KB: %v", n, errs)
		}
	}
}
