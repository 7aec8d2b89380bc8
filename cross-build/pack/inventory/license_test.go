package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const mit = `MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR
ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`

// TestTexts checks which files of a module are taken: those in its root and those along the way to packages that are linked in.
func TestTexts(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"LICENSE", "NOTICE.txt", "COPYING.md", "UNLICENSE", "PATENTS", "license.go", "README.md", "licenses/x", "linked/deep/LICENSE.txt",
		"linked/p.go", "other/LICENSE", "LICENSE-MIT", "mylib-license.txt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte("text\r\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := texts("example.org/m", root, []string{filepath.Join(root, "linked", "deep"), root + "x/other"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range got {
		names = append(names, g.Name)
		if g.Body != "text\n" {
			t.Errorf("%s: %q", g.Name, g.Body)
		}
	}
	if want := "COPYING.md LICENSE LICENSE-MIT NOTICE.txt PATENTS UNLICENSE mylib-license.txt linked/deep/LICENSE.txt"; strings.Join(names, " ") != want {
		t.Errorf("texts %s\nwant  %s", strings.Join(names, " "), want)
	}
}

// TestLicense checks that a licence is recognised, and that a module without one, or with one that asks for more, stops the build.
func TestLicense(t *testing.T) {
	gpl := `This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public License as
published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.
This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty of
MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more details.
You should have received a copy of the GNU General Public License along with this program. If not, see <https://www.gnu.org/licenses/>.
`
	for _, test := range []struct {
		name       string
		part       Part
		want, fail string
	}{
		{"one", Part{Texts: []Text{{"LICENSE", mit}}}, "MIT", ""},
		{"a notice is none", Part{Texts: []Text{{"LICENSE", mit}, {"NOTICE", "thanks"}}}, "MIT", ""},
		{"nothing", Part{}, "", "no text of a licence"},
		{"only a notice", Part{Texts: []Text{{"NOTICE", "thanks"}}}, "", "no text of a licence"},
		{"unknown", Part{Texts: []Text{{"LICENSE", "You may look at it on Sundays.\n"}}}, "", "look at it"},
		{"unknown beside one", Part{Texts: []Text{{"LICENSE", mit}, {"LICENSE-2", "Ask me first.\n"}}}, "", "LICENSE-2 is no text"},
		{"one that asks for more", Part{Texts: []Text{{"LICENSE", gpl}}}, "", "is none of the licences"},
		{"one that a person looked at", Part{Name: "modernc.org/sqlite", Texts: []Text{{"LICENSE", mit}, {"LICENSE-SQLITE", "May you do good\n"}}}, "MIT AND blessing", ""},
	} {
		got, err := license(test.part)
		if got != test.want || (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%s: %q, %v; want %q, %q", test.name, got, err, test.want, test.fail)
		}
	}
}

// TestLibraries checks the list of C libraries.
func TestLibraries(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "COPYING")
	list := filepath.Join(dir, "libraries.txt")
	if err := os.WriteFile(text, []byte("LGPL\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		if err := os.WriteFile(list, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("libseccomp 2.6.0 LGPL-2.1-only " + text + "\nlibgcc 12.2 GPL-3.0-or-later_WITH_GCC-exception-3.1 -\n")
	got, err := libraries(list)
	if err != nil || len(got) != 2 || got[0].Texts[0].Body != "LGPL\n" || got[1].License != "GPL-3.0-or-later WITH GCC-exception-3.1" || got[1].Texts != nil {
		t.Errorf("libraries %+v, %v", got, err)
	}
	for _, bad := range []string{"", "libseccomp 2.6.0\n", "libseccomp 2.6.0 LGPL-2.1-only /nowhere\n"} {
		write(bad)
		if got, err := libraries(list); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}
