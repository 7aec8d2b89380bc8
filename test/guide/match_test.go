package guide

import (
	"regexp"
	"slices"
	"strings"
)

// letters are those of which Kubernetes makes random names.
const letters = `[bcdfghjklmnpqrstvwxz2456789]`

// volatile is what differs from run to run, and what stands for it. The order matters: what is longer comes first.
var volatile = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`petrel1\.[\w.-]+`), "TOKEN"},
	{regexp.MustCompile(`v1\.\d+\.\d+\+petrel-\S+`), "VERSION"},
	{regexp.MustCompile(`sha256:[0-9a-f]{12,64}`), "DIGEST"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\d{8}T\d{6}Z`), "TIME"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\b[0-9a-f]{8}\b`), "ID"},
	{regexp.MustCompile(`:3[0-2]\d{3}/`), ":NODEPORT/"},
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+(:\d{5})?\b`), "ADDRESS"},
	{regexp.MustCompile(`-` + letters + `{8,10}\b`), "-HASH"},
	{regexp.MustCompile(`-` + letters + `{5}\b`), "-RANDOM"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(d|h|m|s|ms|µs))+\b`), "AGE"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (kB|MB|GB|KiB|MiB|GiB)\b`), "SIZE"},
	{regexp.MustCompile(`-{3,}`), "---"},
	{regexp.MustCompile(`\s+`), " "},
}

// normal is a line without what differs from run to run. "..." stays what it is.
func normal(line string) string {
	for _, v := range volatile {
		line = v.re.ReplaceAllString(line, v.with)
	}
	return strings.TrimSpace(line)
}

// progress is a line about what is under way, once it is normal: where an import takes seconds there are some.
var progress = regexp.MustCompile(`^importing \S+: SIZE, SIZE/s$`)

// matches reports whether what a command has printed is what the page says. With more, there may be more after that.
func matches(want, got []string, more bool) bool {
	if more {
		want = append(slices.Clone(want), "...")
	}
	return matchLines(normalAll(want), normalAll(got))
}

// matchesUnordered is matches for lists whose order follows random names.
func matchesUnordered(want, got []string) bool {
	if slices.Contains(want, "...") {
		return false
	}
	want, got = normalAll(want), normalAll(got)
	slices.Sort(want)
	slices.Sort(got)
	return matchLines(want, got)
}

func normalAll(lines []string) (out []string) {
	for _, l := range lines {
		if l = normal(l); !progress.MatchString(l) {
			out = append(out, l)
		}
	}
	return out
}

func matchLines(want, got []string) bool {
	for i, w := range want {
		if w == "..." {
			for rest := i; rest <= len(got); rest++ {
				if matchLines(want[i+1:], got[rest:]) {
					return true
				}
			}
			return false
		}
		if i == len(got) || !matchLine(w, got[i]) {
			return false
		}
	}
	return len(want) == len(got)
}

func matchLine(want, got string) bool {
	if !strings.Contains(want, "...") {
		return want == got
	}
	var pattern strings.Builder
	for i, part := range strings.Split(want, "...") {
		if i > 0 {
			pattern.WriteString(".*")
		}
		pattern.WriteString(regexp.QuoteMeta(part))
	}
	return regexp.MustCompile("^" + pattern.String() + "$").MatchString(got)
}
