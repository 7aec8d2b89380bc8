package notices

import (
	"strings"
	"testing"

	"petrel.dev/petrel/cross-build/pack/inventory"
)

// TestText checks that equal texts stand there once behind all that have them, and that texts of both programs' parts of a module do.
func TestText(t *testing.T) {
	part := func(name string, texts ...inventory.Text) inventory.Part {
		return inventory.Part{Name: name, Version: "v1", License: "MIT", Texts: texts}
	}
	b := inventory.Binary{
		Name: "petrel", Version: "v9",
		Parts: []inventory.Part{part("a", inventory.Text{Name: "LICENSE", Body: "do as\nyou like\n"}), part("b", inventory.Text{Name: "COPYING", Body: "do as you  like"})},
		Inside: []inventory.Binary{{Name: "runc", Parts: []inventory.Part{
			part("a", inventory.Text{Name: "LICENSE", Body: "do as\nyou like\n"}, inventory.Text{Name: "deep/LICENSE", Body: "but not this"}),
		}}},
	}
	got := Text(b)
	for _, want := range []string{
		rule + "\na v1 (LICENSE)\nb v1 (COPYING)\n" + rule + "\n\ndo as\nyou like\n", rule + "\na v1 (deep/LICENSE)\n" + rule + "\n\nbut not this\n",
		"petrel v9", "Programs inside: runc.", "\na v1: MIT\n", "\nb v1: MIT\n",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q stands there %d times, want once:\n%s", want, strings.Count(got, want), got)
		}
	}
}
