package safeyaml

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	laughs := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		n, last := string(rune('0'+i)), string(rune('0'+i-1))
		laughs += "a" + n + ": &a" + n + " [" + strings.Repeat("*a"+last+", ", 9) + "*a" + last + "]\n"
	}
	for name, test := range map[string]struct {
		doc string
		bad bool
	}{
		"plain":                 {"a: 1\nb: [x, y]\n", false},
		"no YAML":               {"a: [&x *y", false},
		"a few aliases":         {"base: &b {image: x, args: [a, b]}\none: *b\ntwo: {<<: *b, image: y}\n", false},
		"stars and ampersands":  {"schedule: '* * * * *'\ncommand: a && b\n", false},
		"one long text, often":  {"a: &a " + strings.Repeat("x", 10_000) + "\nl:\n" + strings.Repeat("- *a\n", 200), true},
		"many levels":           {laughs, true},
		"an anchor in itself":   {"a: &a [*a, *a]\n", true},
		"a long plain document": {"l:\n" + strings.Repeat("- text & text *\n", 100_000), false},
		"just below":            {"a: &a " + strings.Repeat("x", 1000) + "\nl:\n" + strings.Repeat("- *a\n", 900), false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Check([]byte(test.doc), 1<<20); (err != nil) != test.bad {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("a: &a {b: &b [*a, *b]}\nc: *b"))
	f.Fuzz(func(t *testing.T, doc []byte) { _ = Check(doc, 1000) })
}
