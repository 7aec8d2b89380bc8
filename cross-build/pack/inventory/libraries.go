package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// libraries reads what cross-build/programs.sh writes about the C libraries that are linked into runc: a line for each, with its name,
// version, licence as an SPDX identifier, and the file with its text, or a dash where none has to be passed on. Blanks in a licence are
// written as underscores.
func libraries(file string) (out []Part, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			return nil, fmt.Errorf("%s: line %q has not the form: name version licence file", file, strings.TrimSpace(line))
		}
		p := Part{Name: f[0], Version: f[1], License: strings.ReplaceAll(f[2], "_", " "), PURL: "pkg:generic/" + f[0] + "@" + f[1]}
		if f[3] != "-" {
			body, err := os.ReadFile(f[3])
			if err != nil {
				return nil, fmt.Errorf("licence of %s: %w", p.Name, err)
			}
			p.Texts = []Text{{Name: filepath.Base(f[3]), Body: string(body)}}
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no library", file)
	}
	return out, nil
}
