package cli

import (
	"bytes"
	"os"
	"path/filepath"
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
		fromFile, err := readManifests(&Streams{}, []string{path}, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		fromInput, err := readManifests(&Streams{In: bytes.NewReader(content)}, []string{"-"}, false)
		if err != nil {
			t.Errorf("%s on standard input: %v", name, err)
			continue
		}
		for _, docs := range [][]document{fromFile, fromInput} {
			if len(docs) != 2 || docs[0].object.GetName() != "grüße" || docs[1].object.GetKind() != "Secret" {
				t.Fatalf("%s: %+v", name, docs)
			}
			data, _ := docs[0].object.Object["data"].(map[string]any)
			if data["k"] != "日本 \U0001F600" {
				t.Errorf("%s: data %v", name, data)
			}
		}
	}
}
