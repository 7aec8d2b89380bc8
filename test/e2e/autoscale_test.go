package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestAutoscale is an autoscaler on containers that really compute: requests from the node keep them busy, more of them come, and when
// the requests end they go. kubectl's autoscale, get and describe show it as on a cluster with a metrics server.
func TestAutoscale(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	ms := harness.LAN(t, "autoscale", 2)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "edge")
	h.Apply(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 1, selector: {matchLabels: {app: web}},
		template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'petrel.local/hello:v1',
		args: [serve, --listen, ':8080'], resources: {requests: {cpu: 2m}}}]}}}}`)
	h.Available("web")
	out := h.Kubectl("autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu=50%")
	if !strings.Contains(out, "horizontalpodautoscaler.autoscaling/web autoscaled") {
		t.Errorf("kubectl autoscale: %s", out)
	}
	h.Eventually(2*time.Minute, "an idle pod is measured", func() error {
		got, err := h.TryKubectl("get", "hpa", "web", "--no-headers")
		if f := strings.Fields(got); err != nil || len(f) < 7 || f[1] != "Deployment/web" || !strings.HasSuffix(f[3], "%/50%") || f[6] != "1" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
	// Down at once: the window of five minutes has its own timeline in the room.
	h.Kubectl("patch", "hpa", "web", "--type=merge", "-p", `{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0}}}}`)

	ip := strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"))
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := harness.Fetch(ms[1], "http://"+ip+":8080/"); err != nil {
					time.Sleep(100 * time.Millisecond) // it may be among those that go
				}
			}
		})
	}
	defer load.Wait()
	defer stop()
	replicas := func(want string) func() error {
		return func() error {
			got, err := h.TryKubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}")
			if got = strings.TrimSpace(got); err != nil || got != want {
				hpa, _ := h.TryKubectl("get", "hpa", "web")
				return fmt.Errorf("%q, %v: %s", got, err, hpa)
			}
			return nil
		}
	}
	h.Eventually(3*time.Minute, "busy pods become three", replicas("3"))
	described := h.Kubectl("describe", "hpa", "web")
	for _, want := range []string{"Reference:", "Deployment/web", "resource cpu on pods  (as a percentage of request):", "AbleToScale", "ScalingActive", "ValidMetricFound",
		"ScalingLimited", "SuccessfulRescale", "above target", "horizontal-pod-autoscaler"} {
		if !strings.Contains(described, want) {
			t.Errorf("kubectl describe has no %q:\n%s", want, described)
		}
	}
	stop()
	h.Eventually(3*time.Minute, "idle pods become one again", replicas("1"))
	h.Eventually(time.Minute, "the autoscaler says why", func() error {
		if got, err := h.TryKubectl("get", "events", "--field-selector", "involvedObject.name=web,reason=SuccessfulRescale", "-o", "jsonpath={.items[*].message}"); err != nil || !strings.Contains(got, "New size: 1; reason: All metrics below target") {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})

	// A metric that nobody serves: the condition says what is missing.
	h.Apply(`{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web},
		metrics: [{type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 5}}}]}}`)
	h.Eventually(time.Minute, "the autoscaler says that there is no such API", func() error {
		got, err := h.TryKubectl("get", "hpa", "web", "-o", `jsonpath={.status.conditions[?(@.type=="ScalingActive")].message}`)
		if err != nil || !strings.Contains(got, "no external metrics API (external.metrics.k8s.io) registered") {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
}
