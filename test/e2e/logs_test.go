package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestLogsOfAllNodes reads the logs of pods on two nodes as one, by time. While it is followed a pod comes, and a node goes dark and
// comes back.
func TestLogsOfAllNodes(t *testing.T) {
	ms := harness.LAN(t, "logs", 3)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "one")
	h.Join(ms[2], "two")
	h.Apply(fmt.Sprintf(conf, "x"))
	sea := func(name, node string) string {
		return strings.Replace(pinned(name, node, "a", ""), "labels: {app: "+name+"}", "labels: {sea: north}", 1)
	}
	h.Apply(sea("gull", "one") + "\n---" + sea("tern", "two"))
	h.Running("gull")
	h.Running("tern")
	visit := func(on harness.Machine, pod, path string) {
		t.Helper()
		h.Eventually(30*time.Second, pod+" is visited", func() error {
			ip := h.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
			_, err := harness.Fetch(on, "http://"+ip+":8080/"+path)
			return err
		})
	}
	shows := func(p *harness.Process, wants ...string) {
		t.Helper()
		harness.Eventually(t, 60*time.Second, "it shows "+strings.Join(wants, ", "), func() error {
			for _, w := range wants {
				if !strings.Contains(p.Out.String(), w) {
					return fmt.Errorf("no %q in\n%s", w, p.Out.String())
				}
			}
			return nil
		})
	}
	logs := func(more ...string) []string {
		return append([]string{"logs", "--kubeconfig", h.Kubeconfig, "-l", "sea=north", "--all-nodes"}, more...)
	}
	for i := range 3 {
		visit(ms[1], "gull", fmt.Sprintf("a%d", i))
		visit(ms[2], "tern", fmt.Sprintf("b%d", i))
	}
	out, err := ms[0].Command(t.Context(), harness.Petrel, logs()...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var order []string
	for line := range strings.Lines(string(out)) {
		for _, mark := range []string{"a0", "a1", "a2", "b0", "b1", "b2"} {
			if strings.Contains(line, "/"+mark) && strings.HasPrefix(line, map[byte]string{'a': "[pod/gull/hello] ", 'b': "[pod/tern/hello] "}[mark[0]]) {
				order = append(order, mark)
			}
		}
	}
	if got := strings.Join(order, " "); got != "a0 b0 a1 b1 a2 b2" {
		t.Errorf("the visits are in the order %q of\n%s", got, out)
	}

	f := harness.Start(t, ms[0], "logs", logs("-f", "--tail", "1")...)
	shows(f, "[pod/gull/hello] ", "[pod/tern/hello] ")
	h.Apply(sea("auk", "two"))
	h.Running("auk")
	visit(ms[2], "auk", "c0")
	shows(f, "/c0")

	ms[1].Unplug(t)
	shows(f, "petrel: pod/gull/hello on node one: ")
	visit(ms[2], "tern", "b3")
	shows(f, "/b3")
	h.Eventually(60*time.Second, "without -f the dark node's log is named, and the others are there", func() error {
		out, err := ms[0].Command(t.Context(), harness.Petrel, logs()...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "pod/gull/hello on node one is missing: ") || !strings.Contains(string(out), "/b3") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	visit(ms[1], "gull", "a3") // nobody reads it now
	ms[1].Plug(t)
	shows(f, "petrel: pod/gull/hello on node one is read again", "/a3")
	if n := strings.Count(f.Out.String(), "/b3"); n != 1 {
		t.Errorf("a line is printed %d times", n)
	}
	f.Stop(syscall.SIGINT)
	err = <-f.Done
	f.Done <- err // for the test's end
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("after Ctrl-C: %v", err)
	}
}
