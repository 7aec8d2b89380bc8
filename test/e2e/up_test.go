package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/ctrd"
)

// up starts `petrel up` on a machine and waits until its node is ready.
func up(t *testing.T, on machine, dir string, args ...string) *hub {
	t.Helper()
	h := &hub{t: t, on: on, dir: dir, kubeconfig: filepath.Join(dir, "admin.kubeconfig")}
	h.process = start(t, on, "up", append([]string{"up", "--data-dir", dir, "--node-name", "solo", "--bridge", "pte0", "--containerd", "private"}, args...)...)
	h.ready("solo")
	return h
}

// footprint is what a cluster in a directory, on a machine of its own, has of the whole machine: processes, mounts,
// interfaces, routes, packet filters. Empty when nothing is left.
func footprint(t *testing.T, on machine, dir string) string {
	t.Helper()
	var left []string
	for _, pid := range processesOf(dir) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(cmdline) > 0 { // else it has just ended
			left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	run := runDir(dir)
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
		out, _ := on.command(t.Context(), c.args[0], c.args[1:]...).Output() // a bridge that is not there, nft that is not installed
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, c.ours) {
				left = append(left, strings.Join(c.args, " ")+": "+strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(left, "\n")
}

// runDir is where the agent of a data directory keeps what a reboot wipes.
func runDir(dir string) string { return ctrd.DefaultRunDir(filepath.Join(dir, "agent")) }

// sweep ends what a failed test, or pods that were to be kept, would leave.
func sweep(t *testing.T, on machine, dir string) {
	t.Helper()
	t.Cleanup(func() {
		(&agent{t: t, on: on, dir: dir}).wipe()
	})
}

// `petrel up`: one machine, everything works, it says how to use it; with --keep-pods its end and its return touch no
// pod, and without it an interrupt leaves nothing behind.
func TestUp(t *testing.T) {
	t.Parallel()
	m := lan(t, "up", 1)[0]
	dir := t.TempDir()
	sweep(t, m, dir)
	out, err := exec.Command(petrel, "image", "build-hello", "petrel.local/hello:v1", filepath.Join(dir, "images", "hello.tar")).CombinedOutput()
	if err != nil {
		t.Fatalf("petrel image build-hello: %v: %s", err, out)
	}
	h := up(t, m, dir, "--keep-pods")
	said := h.out.String()
	for _, want := range []string{"export KUBECONFIG=" + h.kubeconfig, "petrel get nodes", "petrel token create", "Ctrl-C stops it and leaves the pods running"} {
		if !strings.Contains(said, want) {
			t.Errorf("petrel up does not say %q:\n%s", want, said)
		}
	}
	h.apply(fmt.Sprintf(helloManifest, 2))
	h.available("hello")
	ip := h.k("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	eventually(t, 10*time.Second, "the Service answers", func() error { _, err := fetch(m, "http://"+ip+"/"); return err })

	before := h.lives("app=hello")
	h.interrupt(t)
	for _, uid := range podUIDs(before) {
		if containerPID(uid) == 0 {
			t.Errorf("--keep-pods: pod %s was stopped", uid)
		}
	}
	h = up(t, m, dir)
	if !strings.Contains(h.out.String(), "Ctrl-C stops it and the pods.") {
		t.Errorf("petrel up without --keep-pods says\n%s", h.out.String())
	}
	h.available("hello")
	eventually(t, 10*time.Second, "the Service answers again", func() error { _, err := fetch(m, "http://"+ip+"/"); return err })
	if after := h.lives("app=hello"); after != before {
		t.Errorf("the return touched pods:\n%sbefore:\n%s", after, before)
	}

	h.interrupt(t)
	eventually(t, 5*time.Second, "nothing is left behind", func() error {
		if left := footprint(t, m, dir); left != "" {
			return fmt.Errorf("left:\n%s", left)
		}
		return nil
	})

	// And it all comes back.
	h = up(t, m, dir)
	h.available("hello")
	eventually(t, 20*time.Second, "the Service answers after the return", func() error { _, err := fetch(m, "http://"+ip+"/"); return err })
}

// interrupt is Ctrl-C: the program ends by itself, and calls that success.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		if err != nil {
			t.Errorf("after Ctrl-C: %v\n%s", err, tail(p.out.String(), 20))
		}
	case <-time.After(40 * time.Second):
		t.Fatalf("Ctrl-C does not end it\n%s", tail(p.out.String(), 20))
	}
}
