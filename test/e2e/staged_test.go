package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestStagedRollout rolls a DaemonSet out over real nodes in waves: the canary first, the rest after approval. A version whose container
// does not start is taken back from the canary before any other node gets it.
func TestStagedRollout(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	ms := harness.LAN(t, "staged", 3)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "first")
	h.Join(ms[2], "second")
	h.Kubectl("label", "node", "second", "ring=canary")
	apply := func(args string) {
		h.Apply(fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, annotations: {petrel.dev/rollout-waves: ring=canary, petrel.dev/rollout-approval: each,
			petrel.dev/rollout-max-failures: "0", petrel.dev/rollout-on-failure: rollback}}, spec: {selector: {matchLabels: {app: agent}}, template: {metadata: {labels: {app: agent}},
			spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'petrel.local/hello:v1', args: [%s]}]}}}}`, args))
	}
	// pods are "node args" of those that are ready.
	pods := func(want string) func() error {
		return func() error {
			got, err := h.TryKubectl("get", "pods", "-l", "app=agent", "--sort-by=.spec.nodeName", "-o",
				`jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.spec.nodeName} {.spec.containers[0].args[2]}; {end}`)
			if got = strings.TrimSpace(got); err != nil || got != want {
				return fmt.Errorf("%q, %v; want %q", got, err, want)
			}
			return nil
		}
	}
	reason := func(want string) func() error {
		return func() error {
			got, err := h.TryKubectl("get", "ds", "agent", "-o", `jsonpath={.status.conditions[?(@.type=="petrel.dev/Rollout")].reason}`)
			if got = strings.TrimSpace(got); err != nil || got != want {
				return fmt.Errorf("%q, %v; want %q", got, err, want)
			}
			return nil
		}
	}
	petrel := func(args ...string) string {
		t.Helper()
		out, err := h.On.Command(t.Context(), harness.Petrel, append([]string{"--kubeconfig", h.Kubeconfig}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("petrel %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	apply("serve, --listen, ':8080'")
	h.Eventually(time.Minute, "the first version runs everywhere", pods("first :8080; second :8080;"))
	h.Eventually(time.Minute, "its rollout is complete", reason("Complete"))

	apply("serve, --listen, ':8081'")
	h.Eventually(2*time.Minute, "the canary has the second version", pods("first :8080; second :8081;"))
	h.Eventually(time.Minute, "the rest waits", reason("WaitingForApproval"))
	if out := petrel("rollout", "status", "ds/agent", "--no-watch"); !strings.Contains(out, "wave 2 waits for approval") {
		t.Errorf("petrel rollout status: %s", out)
	}
	if out := petrel("rollout", "approve", "ds/agent"); !strings.Contains(out, "wave 2 approved") {
		t.Errorf("petrel rollout approve: %s", out)
	}
	h.Eventually(2*time.Minute, "both have it", pods("first :8081; second :8081;"))
	h.Eventually(time.Minute, "that rollout is complete", reason("Complete"))

	before := h.LifeOf(strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=agent", "--field-selector=spec.nodeName=first", "-o", "jsonpath={.items[0].metadata.name}")))
	apply("no-such-verb, --listen, ':8082'")
	h.Eventually(3*time.Minute, "the failure is reported", func() error {
		got, err := h.TryKubectl("get", "events", "--field-selector", "involvedObject.name=agent,reason=RolloutRollingBack", "-o", "jsonpath={.items[*].message}")
		if err != nil || !strings.Contains(got, "going back to revision") {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
	h.Eventually(2*time.Minute, "the canary is back", pods("first :8081; second :8081;"))
	h.Eventually(time.Minute, "so is the DaemonSet", reason("Complete"))
	after := h.LifeOf(strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=agent", "--field-selector=spec.nodeName=first", "-o", "jsonpath={.items[0].metadata.name}")))
	if before != after {
		t.Errorf("the other node's pod was touched: %s, then %s", before, after)
	}
}
