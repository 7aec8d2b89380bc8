package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

const (
	// afterWork is what a hub may have, in KiB of RSS, restAfter its rare and heavy work: expressions, schemas, descriptions of all kinds.
	afterWork = 60 << 10
	restAfter = 2 * time.Minute
)

const measured = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gauges.test.petrel.dev
spec:
  group: test.petrel.dev
  scope: Namespaced
  names: {plural: gauges, singular: gauge, kind: Gauge, listKind: GaugeList}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          x-kubernetes-validations:
            - rule: "self.spec.low <= self.spec.high"
              message: low is above high
          properties:
            spec:
              type: object
              required: [low, high]
              properties:
                low: {type: integer}
                high: {type: integer, x-kubernetes-validations: [{rule: "self < 1000"}]}
`

// TestMemoryAfterWork has a hub do what it loads most for, and waits until it has given it back.
func TestMemoryAfterWork(t *testing.T) {
	t.Parallel()
	h := harness.StartHub(t, harness.Here)
	h.Apply(measured)
	h.Kubectl("wait", "--for=condition=Established", "crd/gauges.test.petrel.dev")
	gauge := "apiVersion: test.petrel.dev/v1\nkind: Gauge\nmetadata: {name: %s, namespace: default}\nspec: {low: %d, high: 9}\n"
	h.Apply(fmt.Sprintf(gauge, "a", 1))
	if out, err := h.TryKubectlIn(fmt.Sprintf(gauge, "b", 10), "apply", "-f", "-"); err == nil || !strings.Contains(out, "low is above high") {
		t.Fatalf("the rule does not hold: %v\n%s", err, out)
	}
	if out, err := h.TryKubectlIn(fmt.Sprintf(helloManifest, 1), "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.Kubectl("get", "--raw", "/openapi/v2")
	for _, part := range strings.Split(h.Kubectl("get", "--raw", "/openapi/v3"), `"`) {
		if strings.HasPrefix(part, "/openapi/v3/") {
			h.Kubectl("get", "--raw", part)
		}
	}
	worked := time.Now()
	for {
		u := harness.UsageOf(t, h.Cmd.Process.Pid)
		t.Logf("%s after the work: RSS %d KiB, anonymous %d", time.Since(worked).Round(time.Second), u.RSS, u.Anon)
		if u.RSS <= afterWork {
			return
		}
		if time.Since(worked) > restAfter+30*time.Second { // the hub counts its time from its last work, not from ours
			t.Fatalf("the hub has %d KiB, the budget is %d", u.RSS, afterWork)
		}
		time.Sleep(10 * time.Second)
	}
}
