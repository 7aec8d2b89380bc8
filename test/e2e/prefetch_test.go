package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/test/harness"
)

// TestPrefetch updates a DaemonSet on a metered node: its pod runs on until the node has the new image, which the registry does not have at
// first. Without the label the pod goes at once, and there is none while the image comes.
func TestPrefetch(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	ms := harness.LAN(t, "prefetch", 2)
	h := harness.StartHub(t, ms[0])
	host, push := harness.StartRegistry(t, ms[0])
	agent := h.Join(ms[1], "edge", "--plain-http-registry", host)
	h.Kubectl("label", "node", "edge", "petrel.dev/metered=true")
	push("team/app:1", runtimetest.Busybox(t))
	apply := func(tag string) {
		h.Apply(fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent}, spec: {selector: {matchLabels: {app: agent}}, template: {metadata: {labels: {app: agent}},
			spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: '%s/team/app:%s', command: [sleep, "1000"]}]}}}}`, host, tag))
	}
	// pod is the tag of the one pod that is not being deleted, and whether it is ready.
	pod := func(want string) func() error {
		return func() error {
			got, err := h.TryKubectl("get", "pods", "-l", "app=agent", "-o", "jsonpath={range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready};{end}")
			if got = strings.ReplaceAll(strings.TrimSpace(got), host+"/team/app:", ""); err != nil || got != want {
				return fmt.Errorf("%q, %v; want %q", got, err, want)
			}
			return nil
		}
	}
	apply("1")
	h.Eventually(2*time.Minute, "the first version runs", pod("1 true;"))
	before := h.LifeOf(strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=agent", "-o", "jsonpath={.items[0].metadata.name}")))

	apply("2") // which the registry does not have yet
	h.Eventually(time.Minute, "the node has tried to fetch it", func() error {
		if !strings.Contains(agent.Out.String(), "Failed to pull image") {
			return fmt.Errorf("nothing in the agent's log")
		}
		return nil
	})
	if err := pod("1 true;")(); err != nil {
		t.Fatalf("the old pod did not run on: %v", err)
	}
	if after := h.LifeOf(strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=agent", "-o", "jsonpath={.items[0].metadata.name}"))); before != after {
		t.Errorf("it is another one: %s, then %s", before, after)
	}
	push("team/app:2", runtimetest.Busybox(t))
	h.Eventually(2*time.Minute, "the second version runs", pod("2 true;"))
	name := strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=agent", "-o", "jsonpath={.items[0].metadata.name}"))
	h.Eventually(time.Minute, "it found its image on the node", func() error {
		got, err := h.TryKubectl("get", "events", "--field-selector", "involvedObject.name="+name+",reason=Pulled", "-o", "jsonpath={.items[*].message}")
		if err != nil || !strings.Contains(got, "already present on machine") {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
}
