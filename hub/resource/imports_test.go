package resource

import (
	"os/exec"
	"strings"
	"testing"
)

// This package is the only door to k8s.io/kubernetes, whose packages come with much weight and no promises: what others
// need of it, they ask for here. Run with -count=1: the test cache does not see other packages change.
func TestOnlyDoor(t *testing.T) {
	const self = "petrel.dev/petrel/hub/resource"
	out, err := exec.Command("go", "list", "-test", "-e", "-f", `{{.ImportPath}}:{{range .Imports}} {{.}}{{end}}`, "petrel.dev/petrel/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := false
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(line, ":")
		path, _, _ = strings.Cut(path, " ") // "pkg [pkg.test]"
		if path = strings.TrimSuffix(strings.TrimSuffix(path, ".test"), "_test"); path == self {
			seen = true
			continue
		}
		for _, imported := range strings.Fields(imports) {
			if strings.HasPrefix(imported, "k8s.io/kubernetes/") && path != "petrel.dev/petrel/internal/deps" {
				t.Errorf("%s imports %s: ask hub/resource for it", path, imported)
			}
		}
	}
	if !seen {
		t.Fatalf("go list did not list %s", self)
	}
}
