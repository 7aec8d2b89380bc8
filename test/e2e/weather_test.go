package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
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

// Weather 2 and 3: the hub is away while the node works on, a container dies meanwhile, and the hub's return restarts
// nothing.
func TestHubAwayNodeWorksOn(t *testing.T) { harness.EachBroker(t, "away", 2, hubAwayNodeWorksOn) }

func hubAwayNodeWorksOn(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(helloManifest, 2))
	h.Available("hello")
	ip := h.Kubectl("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	harness.Eventually(t, 10*time.Second, "the Service answers", func() error { _, err := harness.Fetch(ms[1], "http://"+ip+"/"); return err })
	pods := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))

	h.Stop(syscall.SIGKILL)
	if _, err := harness.Fetch(ms[1], "http://"+ip+"/"); err != nil {
		t.Errorf("without a hub the Service should go on: %v", err)
	}
	// A container that dies is started again without a hub.
	killed := harness.KillContainer(t, pods[0])
	harness.Eventually(t, 20*time.Second, "the killed container is back", func() error {
		if pid := harness.ContainerPID(pods[0]); pid == 0 || pid == killed {
			return fmt.Errorf("no new process (pid %d)", pid)
		}
		return nil
	})
	harness.Eventually(t, 10*time.Second, "the Service still answers", func() error { _, err := harness.Fetch(ms[1], "http://"+ip+"/"); return err })
	other := harness.ContainerPID(pods[1])

	h.Start()
	h.Ready("edge")
	h.Eventually(20*time.Second, "the restart is reported", func() error {
		out := h.Kubectl("get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
		if !strings.Contains(out, "1") {
			return fmt.Errorf("restart counts are %q", out)
		}
		return nil
	})
	h.Available("hello")
	now := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))
	if strings.Join(now, " ") != strings.Join(pods, " ") {
		t.Errorf("pods were replaced: %v, before %v", now, pods)
	}
	if pid := harness.ContainerPID(pods[1]); pid != other {
		t.Errorf("the untouched pod was restarted: pid %d, before %d", pid, other)
	}
}

// Restarting the agent does not touch running pods, even when it was killed.
func TestAgentRestartAdoptsPods(t *testing.T) {
	harness.EachBroker(t, "adopt", 2, agentRestartAdoptsPods)
}

func agentRestartAdoptsPods(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	a := h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(helloManifest, 2))
	h.Available("hello")
	before := h.Lives("app=hello")
	a.Stop(syscall.SIGKILL)
	a.Start()
	h.Ready("edge")
	h.Apply(fmt.Sprintf(helloManifest, 3)) // the agent works: a third pod comes
	h.Available("hello")
	after := h.Lives("app=hello")
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("pod was touched:\n%sis now among\n%s", line, after)
		}
	}
}

// Weather 1: everything of the node dies as in a power cut, and it comes back with no hub in reach.
func TestRebootWithoutHub(t *testing.T) { harness.EachBroker(t, "reboot", 2, rebootWithoutHub) }

func rebootWithoutHub(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	a := h.Join(ms[1], "edge")
	h.Apply(fmt.Sprintf(helloManifest, 10))
	h.Available("hello")
	ip := h.Kubectl("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	pods := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`))
	names := h.Kubectl("get", "pods", "-l", "app=hello", "-o", "name", "--sort-by=.metadata.name")

	h.Stop(syscall.SIGKILL)
	a.PowerCut()
	for _, uid := range pods {
		if pid := harness.ContainerPID(uid); pid != 0 {
			t.Fatalf("the power cut left pid %d of pod %s", pid, uid)
		}
	}
	began := time.Now()
	a.Args = nil // no token: the identity and the cache are all it has
	a.Start()
	harness.Eventually(t, 60*time.Second, "all ten pods run again from the cache", func() error {
		for _, uid := range pods {
			if harness.ContainerPID(uid) == 0 {
				return fmt.Errorf("pod %s does not run", uid)
			}
		}
		return nil
	})
	t.Logf("ten pods back %s after the agent's start, with no hub", time.Since(began).Round(10*time.Millisecond))
	harness.Eventually(t, 20*time.Second, "the Service answers", func() error { _, err := harness.Fetch(ms[1], "http://"+ip+"/"); return err })
	pids := map[string]int{}
	for _, uid := range pods {
		pids[uid] = harness.ContainerPID(uid)
	}

	h.Start()
	h.Ready("edge")
	h.Available("hello")
	if now := h.Kubectl("get", "pods", "-l", "app=hello", "-o", "name", "--sort-by=.metadata.name"); now != names {
		t.Errorf("pods were replaced:\n%sbefore:\n%s", now, names)
	}
	for uid, pid := range pids {
		if now := harness.ContainerPID(uid); now != pid {
			t.Errorf("the hub's return restarted pod %s: pid %d, before %d", uid, now, pid)
		}
	}
}
