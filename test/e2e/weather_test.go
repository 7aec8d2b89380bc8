package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const helloManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: %d
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: petrel.local/hello:v1
        args: [serve, --listen, ":8080"]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: http}]
`

// fetch gets a URL from a machine.
func fetch(on machine, url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := on.command(ctx, petrel, "fetch", url).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w: %s", url, err, out)
	}
	return string(out), nil
}

// Weather 2 and 3: the hub is away while the node works on, a container dies meanwhile, and the hub's return restarts
// nothing.
func TestHubAwayNodeWorksOn(t *testing.T) { eachBroker(t, "away", 2, hubAwayNodeWorksOn) }

func hubAwayNodeWorksOn(t *testing.T, ms []machine, h *hub) {
	h.join(ms[1], "edge")
	h.apply(fmt.Sprintf(helloManifest, 2))
	h.available("hello")
	ip := h.k("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	eventually(t, 10*time.Second, "the Service answers", func() error { _, err := fetch(ms[1], "http://"+ip+"/"); return err })
	pods := strings.Fields(h.k("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))

	h.stop(syscall.SIGKILL)
	if _, err := fetch(ms[1], "http://"+ip+"/"); err != nil {
		t.Errorf("without a hub the Service should go on: %v", err)
	}
	// A container that dies is started again without a hub.
	killed := killContainer(t, pods[0])
	eventually(t, 20*time.Second, "the killed container is back", func() error {
		if pid := containerPID(pods[0]); pid == 0 || pid == killed {
			return fmt.Errorf("no new process (pid %d)", pid)
		}
		return nil
	})
	eventually(t, 10*time.Second, "the Service still answers", func() error { _, err := fetch(ms[1], "http://"+ip+"/"); return err })
	other := containerPID(pods[1])

	h.start()
	h.ready("edge")
	h.eventually(20*time.Second, "the restart is reported", func() error {
		out := h.k("get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
		if !strings.Contains(out, "1") {
			return fmt.Errorf("restart counts are %q", out)
		}
		return nil
	})
	h.available("hello")
	now := strings.Fields(h.k("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))
	if strings.Join(now, " ") != strings.Join(pods, " ") {
		t.Errorf("pods were replaced: %v, before %v", now, pods)
	}
	if pid := containerPID(pods[1]); pid != other {
		t.Errorf("the untouched pod was restarted: pid %d, before %d", pid, other)
	}
}

// Restarting the agent does not touch running pods, even when it was killed.
func TestAgentRestartAdoptsPods(t *testing.T) { eachBroker(t, "adopt", 2, agentRestartAdoptsPods) }

func agentRestartAdoptsPods(t *testing.T, ms []machine, h *hub) {
	a := h.join(ms[1], "edge")
	h.apply(fmt.Sprintf(helloManifest, 2))
	h.available("hello")
	before := h.lives("app=hello")
	a.stop(syscall.SIGKILL)
	a.start()
	h.ready("edge")
	h.apply(fmt.Sprintf(helloManifest, 3)) // the agent works: a third pod comes
	h.available("hello")
	after := h.lives("app=hello")
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("pod was touched:\n%sis now among\n%s", line, after)
		}
	}
}

// Weather 1: everything of the node dies as in a power cut, and it comes back with no hub in reach.
func TestRebootWithoutHub(t *testing.T) { eachBroker(t, "reboot", 2, rebootWithoutHub) }

func rebootWithoutHub(t *testing.T, ms []machine, h *hub) {
	a := h.join(ms[1], "edge")
	h.apply(fmt.Sprintf(helloManifest, 10))
	h.available("hello")
	ip := h.k("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	pods := strings.Fields(h.k("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))
	names := h.k("get", "pods", "-l", "app=hello", "-o", "name", "--sort-by=.metadata.name")

	h.stop(syscall.SIGKILL)
	a.powerCut()
	for _, uid := range pods {
		if pid := containerPID(uid); pid != 0 {
			t.Fatalf("the power cut left pid %d of pod %s", pid, uid)
		}
	}
	began := time.Now()
	a.args = nil // no token: the identity and the cache are all it has
	a.start()
	eventually(t, 60*time.Second, "all ten pods run again from the cache", func() error {
		for _, uid := range pods {
			if containerPID(uid) == 0 {
				return fmt.Errorf("pod %s does not run", uid)
			}
		}
		return nil
	})
	t.Logf("ten pods back %s after the agent's start, with no hub", time.Since(began).Round(10*time.Millisecond))
	eventually(t, 20*time.Second, "the Service answers", func() error { _, err := fetch(ms[1], "http://"+ip+"/"); return err })
	pids := map[string]int{}
	for _, uid := range pods {
		pids[uid] = containerPID(uid)
	}

	h.start()
	h.ready("edge")
	h.available("hello")
	if now := h.k("get", "pods", "-l", "app=hello", "-o", "name", "--sort-by=.metadata.name"); now != names {
		t.Errorf("pods were replaced:\n%sbefore:\n%s", now, names)
	}
	for uid, pid := range pids {
		if now := containerPID(uid); now != pid {
			t.Errorf("the hub's return restarted pod %s: pid %d, before %d", uid, now, pid)
		}
	}
}

// containerPID is the process of the hello container of a pod, found by its cgroup; 0 when there is none.
func containerPID(uid string) int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range procs {
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(b, []byte(uid)) {
			continue
		}
		dir := filepath.Dir(file)
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.Contains(cmdline, []byte("serve\x00")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		return pid
	}
	return 0
}

func killContainer(t *testing.T, uid string) int {
	t.Helper()
	pid := containerPID(uid)
	if pid == 0 {
		t.Fatalf("pod %s has no process", uid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return pid
}

// powerCut kills the agent, its containerd, every shim and container at once, and wipes what a reboot wipes: mounts,
// namespaces, interfaces, tmpfs. What is on the disk stays as it is.
func (a *agent) powerCut() {
	a.t.Helper()
	a.stop(syscall.SIGKILL)
	a.wipe()
}

// wipe is powerCut for an agent that has ended.
func (a *agent) wipe() {
	a.t.Helper()
	run := runDir(a.dir)
	for range 3 { // shims that were just being started
		for _, pid := range append(processesOf(a.dir), processesOf(run)...) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(100 * time.Millisecond)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		a.t.Fatal(err)
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && (strings.HasPrefix(f[1], a.dir) || strings.HasPrefix(f[1], run+"/")) {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(run); err != nil {
		a.t.Fatal(err)
	}
	if a.on.ns != "" {
		exec.Command("ip", "-n", a.on.ns, "link", "del", "pte0").Run()
		exec.Command("ip", "-n", a.on.ns, "route", "flush", "table", "local", "proto", "static").Run()
	}
}

// processesOf finds all processes that belong to an agent's directory: by their arguments, or, for the processes of
// containers, by their root file system.
func processesOf(dir string) []int {
	var pids []int
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		mounts, _ := os.ReadFile(filepath.Join(p, "mountinfo"))
		inContainer := false
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			inContainer = inContainer || len(f) > 4 && f[4] == "/" && strings.Contains(line, dir)
		}
		if bytes.Contains(cmdline, []byte(dir)) || inContainer {
			pids = append(pids, pid)
		}
	}
	return pids
}
