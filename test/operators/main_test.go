package operators

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// petrel and kubectl are the binaries under test, set by TestMain before any test runs.
var petrel, kubectl string

// binDir is where the tools of this run are built; TestMain removes it.
var binDir string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	var err error
	if binDir, err = os.MkdirTemp("", "petrel-operators-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(binDir)
	if petrel, err = binary("PETREL_BIN", "petrel", "./cmd/petrel"); err != nil {
		return 1, err
	}
	if kubectl, err = binary("PETREL_KUBECTL", "kubectl", "./test/tools/kubectl"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// binary returns the path that an environment variable names, or builds a package of Petrel's own module.
func binary(env, name, pkg string) (string, error) {
	if path := os.Getenv(env); path != "" {
		return filepath.Abs(path)
	}
	return build(filepath.Join("..", ".."), name, pkg)
}

func build(dir, name, pkg string) (string, error) {
	path := filepath.Join(binDir, name)
	// kubectl refuses to compare versions when its own is not one.
	cmd := exec.Command("go", "build", "-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3", "-o", path, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// building keeps parallel tests from linking several large programs at once.
var building sync.Mutex

// tool builds a program of another module, at the version that go.mod names.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	return toolIn(t, ".", name, pkg)
}

// toolIn is tool for a program at the version that the go.mod in dir names.
func toolIn(t *testing.T, dir, name, pkg string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	path, err := build(dir, name, pkg)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
