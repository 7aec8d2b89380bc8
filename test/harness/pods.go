package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ready waits until a node is.
func (h *Hub) Ready(node string) {
	h.t.Helper()
	h.Eventually(30*time.Second, node+" is ready", func() error {
		_, err := h.TryKubectl("wait", "--for=condition=Ready", "node/"+node, "--timeout=1s")
		return err
	})
}

// Available waits until a Deployment is.
func (h *Hub) Available(name string) {
	h.t.Helper()
	if _, err := h.TryKubectl("rollout", "status", "deployment/"+name, "--timeout=2m"); err != nil {
		pods, _ := h.TryKubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.conditions}{"\n"}{end}`)
		status, _ := h.TryKubectl("get", "deploy,rs", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status}{"\n"}{end}`)
		h.t.Fatalf("%v\n%s%s", err, pods, status)
	}
}

// Lives maps the pods of the default namespace to their UID and restarts: equal maps mean that nothing was restarted.
func (h *Hub) Lives(selector string) string {
	h.t.Helper()
	return h.Kubectl("get", "pods", "-l", selector, "--sort-by=.metadata.name", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
}

// PodUIDs are the pods in the output of lives.
func PodUIDs(lives string) []string {
	var uids []string
	for line := range strings.Lines(lives) {
		uids = append(uids, strings.Fields(line)[1])
	}
	return uids
}

// Running waits until a pod is ready.
func (h *Hub) Running(pod string) {
	h.t.Helper()
	h.Kubectl("wait", "--for=condition=Ready", "pod/"+pod, "--timeout=2m")
}

// Says waits until a pod's server answers with all of wants, asked on its own node.
func (h *Hub) Says(on Machine, pod string, wants ...string) {
	h.t.Helper()
	h.Eventually(60*time.Second, pod+" says "+strings.Join(wants, ", "), func() error {
		ip, err := h.TryKubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
		if err != nil {
			return err
		}
		out, err := Fetch(on, "http://"+ip+":8080/")
		for _, w := range wants {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("no %q in %s", w, out)
			}
		}
		return err
	})
}

// LifeOf is a line of lives for each pod, but without restarts by others.
func (h *Hub) LifeOf(pod string) string {
	h.t.Helper()
	return h.Kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
}

// NoDoubles compares the processes of hello containers with the cluster's pods: each pod has one, and none is nobody's.
func (h *Hub) NoDoubles(t *testing.T) {
	t.Helper()
	h.Eventually(30*time.Second, "every pod has one process, and no process is without a pod", func() error {
		want := strings.Fields(h.Kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"))
		count := map[string]int{}
		for _, dir := range h.agents {
			for _, pid := range ProcessesOf(dir) {
				cgroup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if !bytes.Contains(cmdline, []byte("serve\x00")) {
					continue
				}
				owner := fmt.Sprintf("nobody: pid %d", pid)
				for _, uid := range want {
					if bytes.Contains(cgroup, []byte(uid)) {
						owner = uid
					}
				}
				count[owner]++
			}
		}
		for _, uid := range want {
			if count[uid] != 1 {
				return fmt.Errorf("pod %s has %d processes", uid, count[uid])
			}
		}
		if len(count) != len(want) {
			return fmt.Errorf("%d pods, but processes of %v", len(want), count)
		}
		return nil
	})
}

// ContainerPID is the process of the hello container of a pod, found by its cgroup; 0 when there is none.
func ContainerPID(uid string) int { return PodProcess(uid, "serve\x00") }

// PodProcess is a process of a pod that has a text in its command line, found by its cgroup; 0 when there is none.
func PodProcess(uid, text string) int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range procs {
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(b, []byte(uid)) {
			continue
		}
		dir := filepath.Dir(file)
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.Contains(cmdline, []byte(text)) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		return pid
	}
	return 0
}

func KillContainer(t *testing.T, uid string) int {
	t.Helper()
	pid := ContainerPID(uid)
	if pid == 0 {
		t.Fatalf("pod %s has no process", uid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return pid
}
