package apiserver_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestKubectl runs the stories in testdata/kubectl: the real kubectl against a hub of its own, with no controllers and no
// nodes behind it.
func TestKubectl(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/kubectl",
		Setup: func(env *testscript.Env) error {
			h := newHub(t, withNode(&node{}))
			env.Defer(h.stop)
			env.Setenv("KUBECONFIG", h.kubeconfig)
			env.Setenv("PATH", filepath.Dir(kubectlPath)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
	})
}
