package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestHubMoves moves a hub to another machine with another address, as docs/backup.md says: the old one is started with the new
// address beside its own, which its nodes remember; a backup is made while it runs, and restored on the new machine. Nothing is restarted, and
// the new hub drives the node. A second restore is refused.
func TestHubMoves(t *testing.T) {
	t.Parallel()
	ms := harness.LAN(t, "move", 3)
	h := harness.StartHub(t, ms[0], "--encrypt-secrets")
	h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(helloManifest, 2))
	h.Kubectl("create", "secret", "generic", "kept", "--from-literal=word=petrel")
	h.Available("hello")

	h.Stop(syscall.SIGTERM)
	h.Args = append(h.Args, "--advertise", ms[2].IP)
	h.Start()
	h.Ready("edge")
	h.Eventually(20*time.Second, "the node is connected", func() error {
		_, err := h.TryKubectl("exec", "deploy/hello", "--", "/petrel", "version")
		return err
	})
	lives := h.Lives("app=hello")

	run := func(on harness.Machine, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := on.Command(ctx, harness.Petrel, args...).CombinedOutput()
		return string(out), err
	}
	file, dir := filepath.Join(t.TempDir(), "hub.tar.zst"), filepath.Join(t.TempDir(), "moved")
	out, err := run(ms[0], "backup", "--data-dir", h.Dir, "-o", file)
	if err != nil || !strings.Contains(out, "hub at revision") {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	h.Stop(syscall.SIGTERM)
	if out, err := run(ms[2], "restore", "--data-dir", dir, file); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	if out, err := run(ms[2], "restore", "--data-dir", dir, file); err == nil || !strings.Contains(out, "there is a store already") {
		t.Errorf("a second restore: %v\n%s", err, out)
	}

	h.On, h.Dir, h.Address, h.Args = ms[2], dir, ms[2].IP+":6443", []string{"--encrypt-secrets"}
	h.Kubeconfig = filepath.Join(dir, "admin.kubeconfig")
	h.Start()
	h.Eventually(60*time.Second, "the node is connected to the hub at its new address", func() error {
		_, err := h.TryKubectl("exec", "deploy/hello", "--", "/petrel", "version")
		return err
	})
	if now := h.Lives("app=hello"); now != lives {
		t.Errorf("pods were restarted:\n%s\nbefore:\n%s", now, lives)
	}
	if word := h.Kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}"); word != "cGV0cmVs" {
		t.Errorf("the Secret is %q", word)
	}
	h.Kubectl("scale", "deploy/hello", "--replicas=3")
	h.Available("hello")
}
