package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPlainScript runs the script of a plain init for real, with a program that waits in petrel's place: it starts once, is
// started again when it ends, is stopped, and a number of a process that is another one by now is left alone.
func TestPlainScript(t *testing.T) {
	for _, program := range []string{"setsid", "sh", "tr", "grep"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: what runs the script needs it", err)
		}
	}
	dir := t.TempDir()
	text, err := plainInit.text("hub")
	if err != nil {
		t.Fatal(err)
	}
	// Each start adds a line with the process's number and waits for a signal.
	write(t, filepath.Join(dir, "petrel"), "#!/bin/sh\necho $$ $1 >>"+dir+"/starts\nexec sleep 1000\n")
	text = strings.NewReplacer(binary, dir+"/petrel", "/run/", dir+"/", "/var/log/", dir+"/", "sleep 2", "sleep 0.1").Replace(text)
	file := write(t, filepath.Join(dir, "petrel-hub"), text)
	run := func(action string, code int) string {
		t.Helper()
		cmd := exec.Command(file, action)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%s: exit code %d, want %d: %s", action, got, code, out)
		}
		return string(out)
	}
	t.Cleanup(func() { _ = exec.Command(file, "stop").Run() })
	starts := func(n int) []string { // waits for the nth
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			b, _ := os.ReadFile(dir + "/starts")
			if lines := strings.Fields(string(b)); len(lines) >= 2*n {
				return lines
			}
		}
		t.Fatalf("start %d did not come", n)
		return nil
	}
	run("status", 3)
	run("stop", 0)
	run("start", 0)
	run("start", 0) // no second one
	first := starts(1)
	if first[1] != "hub" {
		t.Errorf("started with %q", first[1])
	}
	if out := run("status", 0); !strings.Contains(out, "petrel-hub runs") {
		t.Errorf("status: %s", out)
	}
	if err := exec.Command("kill", first[0]).Run(); err != nil {
		t.Fatal(err)
	}
	second := starts(2)
	run("restart", 0)
	third := starts(3)
	if len(third) != 6 || second[2] == third[4] {
		t.Errorf("started %q; want three processes", third)
	}
	run("stop", 0)
	for _, pid := range []string{third[0], third[2], third[4]} {
		if exec.Command("kill", "-0", pid).Run() == nil {
			t.Errorf("process %s still runs", pid)
		}
	}
	write(t, filepath.Join(dir, "petrel-hub.pid"), strconv.Itoa(os.Getpid()))
	run("stop", 0)
	run("status", 3)
}

// TestPlainScriptGoesDown checks that an agent's pods are ended when the machine shuts down or reboots, and at no other stop.
func TestPlainScriptGoesDown(t *testing.T) {
	dir := t.TempDir()
	text, err := plainInit.text("agent")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "petrel"), "#!/bin/sh\necho $*\n")
	text = strings.NewReplacer(binary, dir+"/petrel", "/run/", dir+"/", "/var/log/", dir+"/").Replace(text)
	file := write(t, filepath.Join(dir, "petrel-agent"), text)
	for runlevel, want := range map[string]string{"": "", "2": "", "0": "agent --stop-pods\n", "6": "agent --stop-pods\n"} {
		_ = os.Remove(filepath.Join(dir, "petrel-agent.log"))
		cmd := exec.Command(file, "stop")
		cmd.Env = append(os.Environ(), "RUNLEVEL="+runlevel)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("runlevel %q: %v: %s", runlevel, err, out)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "petrel-agent.log")); string(got) != want {
			t.Errorf("runlevel %q: ran %q, want %q", runlevel, got, want)
		}
	}
}
