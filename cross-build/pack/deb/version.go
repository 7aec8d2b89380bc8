package deb

import (
	"regexp"
	"strings"
)

// described is what `git describe` makes: a tag of the form v1.2.3, perhaps of a release candidate, and perhaps commits since then.
var described = regexp.MustCompile(`^v?(\d+(?:\.\d+)*)(?:-([0-9A-Za-z.]+?))??(?:-(\d+)-g([0-9a-f]+))?$`)

// Version returns a version of Petrel's as Debian orders it: a candidate before its release, commits after it.
//
//	v1.2.3                 1.2.3
//	v1.2.3-rc.1            1.2.3~rc.1
//	v1.2.3-14-g1f67a02     1.2.3+14.g1f67a02
//	v1.2.3-dirty           1.2.3+0.dirty: with changes that no commit has
//	1f67a02 (no tag yet)   0~g1f67a02, which is before every release; two such have no order that means anything
func Version(v string) string {
	v, dirty := strings.CutSuffix(v, "-dirty")
	out := "0~g" + regexp.MustCompile(`[^0-9A-Za-z.+~]+`).ReplaceAllString(v, ".")
	if m := described.FindStringSubmatch(v); m != nil && (strings.Contains(m[1], ".") || strings.HasPrefix(v, "v")) {
		out = m[1]
		if m[2] != "" {
			out += "~" + m[2]
		}
		switch {
		case m[3] != "":
			out += "+" + m[3] + ".g" + m[4]
		case dirty:
			out += "+0"
		}
	}
	if dirty {
		out += ".dirty"
	}
	return out
}
