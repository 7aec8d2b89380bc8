package apiserver_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/resource/builtin"
)

// TestServesAllThatIsStable compares discovery with Kubernetes' own of the same version, which its source has as documents: every resource and
// subresource of a stable version is there, with the same names, scope, kind and verbs.
func TestServesAllThatIsStable(t *testing.T) {
	t.Parallel()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "api", "discovery", "api*__v[12].json"))
	if err != nil || len(files) < 20 {
		t.Fatalf("Kubernetes' documents: %v, %v", files, err)
	}
	h := newHubOf(t, builtin.New(), nil)
	seen := 0
	for _, file := range files {
		want := resources(t, func() ([]byte, error) { return os.ReadFile(file) })
		path := "/" + strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".json"), "__", "/")
		got := resources(t, func() ([]byte, error) {
			a := h.do("GET", path, "")
			if a.code != 200 {
				return nil, fmt.Errorf("%s: %d", path, a.code)
			}
			return []byte(a.body), nil
		})
		for name, w := range want {
			seen++
			key := strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/") + " " + name
			g, ok := got[name]
			switch {
			case !ok:
				t.Errorf("%s is not served", key)
			case g != w:
				t.Errorf("%s is\n%s, on Kubernetes\n%s", key, g, w)
			}
		}
	}
	if seen < 110 {
		t.Errorf("%d resources were compared", seen)
	}
}

// resources returns what a document of discovery says of each resource.
func resources(t *testing.T, read func() ([]byte, error)) map[string]string {
	t.Helper()
	text, err := read()
	if err != nil {
		t.Error(err)
		return nil
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range list.APIResources {
		slices.Sort(r.ShortNames)
		slices.Sort(r.Categories)
		slices.Sort(r.Verbs)
		out[r.Name] = fmt.Sprintf("kind %s of %q %q, namespaced %v, singular %q, short %q, categories %q, verbs %q", r.Kind, r.Group, r.Version, r.Namespaced, r.SingularName, r.ShortNames, r.Categories, r.Verbs)
	}
	return out
}
