package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// binaries are absolute paths.
type binaries struct {
	suite, ginkgo, kubectl string
	// programs of the images, by name
	agnhost, consumer, consumeCPU, issue74839, sampleAPI, etcd string
	// static programs of ours for images whose originals are not in Go
	idle, nnp, shell string
	// upstream is the directory of the module k8s.io/kubernetes.
	upstream string
}

// step is one call of the go command, in a directory.
type step struct {
	dir  string
	args []string
}

// build makes the binaries, for short only those that the tests of short.txt run; what is up to date costs only the go command's check.
func build(ctx context.Context, root, cache string, short bool) (*binaries, error) {
	dir := filepath.Join(cache, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	b := &binaries{
		suite: at("suite.test"), ginkgo: at("ginkgo"), kubectl: at("kubectl"), agnhost: at("agnhost"), consumer: at("consumer"),
		consumeCPU: at("consume-cpu"), issue74839: at("regression-issue-74839"), idle: at("idle"), nnp: at("nnp"), shell: at("sh"),
		sampleAPI: at("sample-apiserver"), etcd: at("etcd"),
	}
	fmt.Println("building the suite, the first time takes ten minutes")
	const kubernetes = "k8s.io/kubernetes/test/images/"
	steps := []step{
		{".", []string{"test", "-c", "-vet=off", "-o", b.suite, "./suite"}},
		{".", []string{"build", "-o", b.ginkgo, "github.com/onsi/ginkgo/v2/ginkgo"}},
		{".", []string{"build", "-o", b.agnhost, kubernetes + "agnhost"}},
		{".", []string{"build", "-o", b.idle, "./stand-ins/idle"}},
		{".", []string{"build", "-o", b.shell, "./stand-ins/sh"}},
		{root, []string{"build", "-o", b.kubectl, "./test/tools/kubectl"}},
	}
	if !short {
		steps = append(steps,
			step{".", []string{"build", "-o", b.consumer, kubernetes + "resource-consumer"}},
			step{".", []string{"build", "-o", b.consumeCPU, kubernetes + "resource-consumer/consume-cpu"}},
			step{".", []string{"build", "-o", b.issue74839, kubernetes + "regression-issue-74839"}},
			step{".", []string{"build", "-o", b.sampleAPI, "k8s.io/sample-apiserver"}},
			step{".", []string{"build", "-o", b.etcd, "./stand-ins/etcd"}},
			step{".", []string{"build", "-o", b.nnp, "./stand-ins/nnp"}})
	}
	for _, step := range steps {
		flags := "-s -w"
		if step.dir == root {
			// kubectl refuses to compare versions when its own is not one.
			flags += " -X k8s.io/component-base/version.gitVersion=v1.36.3"
		}
		args := append([]string{step.args[0], "-ldflags", flags}, step.args[1:]...)
		if _, err := goCommand(ctx, step.dir, args...); err != nil {
			return nil, err
		}
	}
	out, err := goCommand(ctx, ".", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	b.upstream = strings.TrimSpace(out)
	return b, err
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}
