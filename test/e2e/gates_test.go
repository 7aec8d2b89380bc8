package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/test/harness"
)

// TestReadinessGates has a client set and unset the condition that a Deployment's pods wait for: the pod is ready, its Deployment available and
// its Service leads to it only while the condition is True. A node that starts anew without the hub keeps the last it was sent.
func TestReadinessGates(t *testing.T) {
	harness.Long(t)
	ms, h := startBox(t, "gates", 2)
	edge := h.Join(ms[1], "edge")
	h.Apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      readinessGates: [{conditionType: example.com/in-the-pool}]
      containers: [{name: c, image: "petrel.local/box:v1", command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`)
	// shows waits for the Ready condition's status, reason and message, the Deployment's available replicas, and the Service's ready endpoints.
	shows := func(want string) {
		t.Helper()
		h.Eventually(time.Minute, want, func() error {
			ready, err := h.TryKubectl("get", "pods", "-l", "app=web", "-o", `jsonpath={range .items[0].status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`)
			if err != nil {
				return err
			}
			rest, err := h.TryKubectl("get", "deploy,endpointslices", "-o", `jsonpath={range .items[?(@.kind=="Deployment")]}{.status.availableReplicas}{end}|`+
				`{range .items[?(@.kind=="EndpointSlice")]}{range .endpoints[?(@.targetRef.kind=="Pod")]}{.conditions.ready}{end}{end}`)
			if got := ready + "|" + rest; err != nil || got != want {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	}
	set := func(status string) {
		t.Helper()
		name := strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"))
		h.Kubectl("patch", "pod", name, "--subresource=status", "--type=strategic", "-p",
			`{"status":{"conditions":[{"type":"example.com/in-the-pool","status":"`+status+`"}]}}`)
	}
	shows(`False ReadinessGatesNotReady corresponding condition of pod readiness gate "example.com/in-the-pool" does not exist.||false`)
	set("True")
	shows("True  |1|true")
	set("False")
	shows(`False ReadinessGatesNotReady the status of pod readiness gate "example.com/in-the-pool" is not "True", but False||false`)
	set("True")
	shows("True  |1|true")
	before := h.Lives("app=web")

	ms[1].Unplug(t)
	edge.PowerCut()
	edge.Start()
	uid := harness.PodUIDs(before)[0]
	harness.Eventually(t, 90*time.Second, "the pod is ready again without the hub", func() error {
		b, err := os.ReadFile(filepath.Join(edge.Dir, "agent", "pods", uid, "status.json"))
		var st corev1.PodStatus
		if err == nil {
			err = json.Unmarshal(b, &st)
		}
		if err == nil && (!kube.IsConditionTrue(st.Conditions, corev1.PodReady) || len(st.ContainerStatuses) != 1 || st.ContainerStatuses[0].RestartCount != 1) {
			err = fmt.Errorf("%s", b)
		}
		return err
	})
	ms[1].Plug(t)
	shows("True  |1|true")
	set("False")
	shows(`False ReadinessGatesNotReady the status of pod readiness gate "example.com/in-the-pool" is not "True", but False||false`)
}
