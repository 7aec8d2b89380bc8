package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestExamples runs each file of examples/ as its comments say, on real containers and in a namespace of its own: it applies the
// file, runs its commands, deletes it, and sees nothing left of it.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	readme, err := os.ReadFile("../../examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	ms := harness.LAN(t, "examples", 2)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "edge")
	t.Run("files", func(t *testing.T) {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".yaml")
			if !strings.Contains(string(readme), "["+name+".yaml]("+name+".yaml)") {
				t.Errorf("%s.yaml has no line in examples/README.md", name)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				example(t, h, file, "example-"+name)
			})
		}
	})
	harness.Eventually(t, time.Minute, "the volumes of claims go", func() error {
		out, err := h.TryKubectl("get", "pv", "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("left: %s", out)
		}
		return err
	})
	h.NoDoubles(t)
}

// example runs one file in a new namespace.
func example(t *testing.T, h *harness.Hub, file, namespace string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "namespace: default", "namespace: "+namespace)
	steps := commands(strings.ReplaceAll(text, "NAMESPACE", namespace))
	if len(steps) == 0 {
		t.Fatal("the file names no command by which to see that it works")
	}
	kubectl := func(stdin string, args ...string) string {
		t.Helper()
		out, err := h.TryKubectlIn(stdin, args...)
		if err != nil {
			t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	own := []string{"-n", namespace}
	if strings.Contains(text, "kind: Namespace") { // its objects say where they belong
		own = nil
	}
	with := func(args ...string) []string { return append(args[:len(args):len(args)], own...) }
	kubectl("", "create", "namespace", namespace)
	// Right after its namespace the account of its pods may not be there yet, and right after its CRD a kind is not served.
	harness.Eventually(t, time.Minute, "it is applied", func() error {
		_, err := h.TryKubectlIn(text, with("apply", "-f", "-")...)
		return err
	})
	for _, s := range steps {
		harness.Eventually(t, 3*time.Minute, "kubectl "+strings.Join(s.args, " "), func() error {
			out, err := h.TryKubectl(with(s.args...)...)
			switch {
			case s.fails && err == nil:
				return fmt.Errorf("it is not refused: %s", out)
			case s.fails:
				out = err.Error()
			case err != nil:
				return err
			}
			if !strings.Contains(out, s.prints) {
				return fmt.Errorf("it prints %q, not %q", out, s.prints)
			}
			return nil
		})
	}
	kubectl(text, with("delete", "-f", "-", "--timeout=2m")...)
	harness.Eventually(t, 90*time.Second, "nothing is left", func() error {
		out, err := h.TryKubectl("get", "-n", namespace, "--ignore-not-found", "-o", "name", "pods,rc,rs,deploy,sts,ds,jobs,cronjobs,controllerrevisions,services,endpointslices,"+
			"pvc,pdb,hpa,quota,limits,secrets,roles,rolebindings")
		if err == nil && out != "" {
			err = fmt.Errorf("left:\n%s", out)
		}
		return err
	})
	kubectl("", "delete", "namespace", namespace, "--timeout=2m")
}

// step is a command of an example's comments.
type step struct {
	args   []string
	fails  bool
	prints string // a part of what it prints
}

// commands reads the lines "# $ kubectl ..." of a file, each with the line "# = what it prints" that may follow, and "!" before
// kubectl where the command is refused.
func commands(text string) (steps []step) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if cmd, ok := strings.CutPrefix(line, "# $ "); ok {
			cmd, fails := strings.CutPrefix(cmd, "! ")
			steps = append(steps, step{args: strings.Fields(cmd)[1:], fails: fails})
		} else if prints, ok := strings.CutPrefix(line, "# = "); ok {
			steps[len(steps)-1].prints = prints
		}
	}
	return steps
}
