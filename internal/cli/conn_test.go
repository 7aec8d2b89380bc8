package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/commandtree"
)

// TestUnreachable checks that the error names the way out: the hub is off, at another address, or another hub answers.
func TestUnreachable(t *testing.T) {
	const closed = "http://127.0.0.1:1" // nobody is there
	h := newFakeHub(t)
	h.mux.HandleFunc("/api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
	})
	write := func(server string) Cluster {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": "`+server+`"}}],
			"contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}], "users": [{"name": "c"}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return Cluster{Kubeconfig: file}
	}
	for name, c := range map[string]struct {
		cluster Cluster
		text    string
	}{
		"nobody listens":  {write(closed), "is `petrel hub` (or `petrel up`) running there?"},
		"another's":       {h.cluster(), "the kubeconfig's credentials are not this hub's, have expired or were revoked; fetch a new one with `petrel kubeconfig`"},
		"no such file":    {Cluster{Kubeconfig: "/nowhere/config"}, "kubeconfig: stat /nowhere/config: no such file"},
		"no such context": {Cluster{Kubeconfig: h.config, Context: "other"}, `context "other" does not exist`},
	} {
		for verb, run := range map[string]func() error{
			"get": func() error {
				return (&Get{Cluster: c.cluster, Args: []string{"nodes"}}).Run(t.Context(), new(output).streams(""))
			},
			"describe": func() error {
				return (&Describe{Cluster: c.cluster, Args: []string{"nodes"}}).Run(t.Context(), new(output).streams(""))
			},
		} {
			t.Run(name+"/"+verb, func(t *testing.T) { mustFail(t, run(), c.text) })
		}
	}
}

// TestClusterFlags holds the list by which completion, defaults and the reading of arguments know the flags of Cluster to its fields.
func TestClusterFlags(t *testing.T) {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Cluster]()) {
		names = append(names, strings.ToLower(f.Name))
	}
	if !slices.Equal(names, commandtree.ClusterFlags) {
		t.Errorf("Cluster has the flags %q, commandtree.ClusterFlags are %q", names, commandtree.ClusterFlags)
	}
}
