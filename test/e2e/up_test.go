package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// footprint is what a cluster in a directory, on a machine of its own, has of the whole machine: processes, mounts,
// interfaces, routes, packet filters. Empty when nothing is left.
func footprint(t *testing.T, on harness.Machine, dir string) string {
	t.Helper()
	var left []string
	for _, pid := range harness.ProcessesOf(dir) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(cmdline) > 0 { // else it has just ended
			left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	run := harness.RunDir(dir)
	if _, err := os.Stat(run); err == nil {
		left = append(left, "directory: "+run)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) || strings.Contains(line, run+"/") {
			left = append(left, "mount: "+strings.TrimSpace(line))
		}
	}
	for _, c := range []struct {
		ours string
		args []string
	}{
		{"pte0", []string{"ip", "-o", "link"}},
		{"local 10.43.", []string{"ip", "route", "show", "table", "local"}},
		{"10.42.", []string{"ip", "route"}},
		{"petrel", []string{"nft", "list", "tables"}},
	} {
		out, _ := on.Command(t.Context(), c.args[0], c.args[1:]...).Output() // a bridge that is not there, nft that is not installed
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, c.ours) {
				left = append(left, strings.Join(c.args, " ")+": "+strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(left, "\n")
}

// `petrel up`: one machine, everything works, it says how to use it; with --keep-pods its end and its return touch no
// pod, and without it an interrupt leaves nothing behind.
func TestUp(t *testing.T) {
	t.Parallel()
	m := harness.LAN(t, "up", 1)[0]
	dir := t.TempDir()
	harness.Sweep(t, m, dir)
	out, err := exec.Command(harness.Petrel, "image", "build-hello", "petrel.local/hello:v1", filepath.Join(dir, "images", "hello.tar")).CombinedOutput()
	if err != nil {
		t.Fatalf("petrel image build-hello: %v: %s", err, out)
	}
	h := harness.Up(t, m, dir, "--keep-pods")
	said := h.Out.String()
	for _, want := range []string{"export KUBECONFIG=" + h.Kubeconfig, "petrel get nodes", "petrel token create", "Ctrl-C stops it and leaves the pods running"} {
		if !strings.Contains(said, want) {
			t.Errorf("petrel up does not say %q:\n%s", want, said)
		}
	}
	h.Apply(fmt.Sprintf(helloManifest, 2))
	h.Available("hello")
	ip := h.Kubectl("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	harness.Eventually(t, 10*time.Second, "the Service answers", func() error { _, err := harness.Fetch(m, "http://"+ip+"/"); return err })

	before := h.Lives("app=hello")
	h.Interrupt(t)
	for _, uid := range harness.PodUIDs(before) {
		if harness.ContainerPID(uid) == 0 {
			t.Errorf("--keep-pods: pod %s was stopped", uid)
		}
	}
	h = harness.Up(t, m, dir)
	if !strings.Contains(h.Out.String(), "Ctrl-C stops it and the pods.") {
		t.Errorf("petrel up without --keep-pods says\n%s", h.Out.String())
	}
	h.Available("hello")
	harness.Eventually(t, 10*time.Second, "the Service answers again", func() error { _, err := harness.Fetch(m, "http://"+ip+"/"); return err })
	if after := h.Lives("app=hello"); after != before {
		t.Errorf("the return touched pods:\n%sbefore:\n%s", after, before)
	}

	h.Interrupt(t)
	harness.Eventually(t, 5*time.Second, "nothing is left behind", func() error {
		if left := footprint(t, m, dir); left != "" {
			return fmt.Errorf("left:\n%s", left)
		}
		return nil
	})

	// And it all comes back.
	h = harness.Up(t, m, dir)
	h.Available("hello")
	harness.Eventually(t, 20*time.Second, "the Service answers after the return", func() error { _, err := harness.Fetch(m, "http://"+ip+"/"); return err })
}
