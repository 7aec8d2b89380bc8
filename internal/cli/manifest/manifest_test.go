package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16File is text as editors and shells of Windows write it: UTF-16 with a byte order mark.
func utf16File(text string, bigEndian bool) []byte {
	var out []byte
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(text))...) {
		if bigEndian {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	return out
}

// TestUnicode (field case 19): a manifest in UTF-16 of either order is read as the same one in UTF-8, as kubectl does.
func TestUnicode(t *testing.T) {
	const text = "apiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: grüße}\r\ndata: {k: \"日本 \U0001F600\"}\r\n---\r\napiVersion: v1\r\nkind: Secret\r\nmetadata: {name: b}\r\n"
	for name, content := range map[string][]byte{
		"utf-8": []byte(text), "utf-8 with a mark": []byte("\xef\xbb\xbf" + text),
		"utf-16le": utf16File(text, false), "utf-16be": utf16File(text, true),
	} {
		path := filepath.Join(t.TempDir(), "m.yaml")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		fromFile, err := Read(nil, []string{path}, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		fromInput, err := Read(bytes.NewReader(content), []string{"-"}, false)
		if err != nil {
			t.Errorf("%s on standard input: %v", name, err)
			continue
		}
		for _, docs := range [][]Document{fromFile, fromInput} {
			if len(docs) != 2 || docs[0].Object.GetName() != "grüße" || docs[1].Object.GetKind() != "Secret" {
				t.Fatalf("%s: %+v", name, docs)
			}
			data, _ := docs[0].Object.Object["data"].(map[string]any)
			if data["k"] != "日本 \U0001F600" {
				t.Errorf("%s: data %v", name, data)
			}
		}
	}
}

// A file of JSON objects in a row is all of them; YAML in braces and broken JSON stay for the YAML parser.
func TestJSONValues(t *testing.T) {
	for text, want := range map[string]int{
		"{\"a\":1}\n{\"a\":2} {\"a\":1}": 3, "\xef\xbb\xbf{\"a\":1}": 1, "{a: 1}": 1, "a: 1": 1, "{\"a\":1}\n{\"a\":": 2, "{\"a\":1}\ntext": 2,
	} {
		got := jsonValues([]byte(text))
		if len(got) != want {
			t.Errorf("%q: %q", text, got)
		}
		joined := strings.Join(strings.Fields(string(slices.Concat(got...))), "")
		if want := strings.Join(strings.Fields(strings.TrimPrefix(text, "\xef\xbb\xbf")), ""); joined != want {
			t.Errorf("%q lost something: %q", text, got)
		}
	}
}
