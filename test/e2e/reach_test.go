package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestReach reads through the hub what runs on another machine: a pod and a Service by proxy, the node's own API, and what
// kubectl top makes of it. When the node is dark, each says so.
func TestReach(t *testing.T) {
	t.Parallel()
	ms := harness.LAN(t, "reach", 2)
	h := harness.StartHub(t, ms[0])
	a := h.Join(ms[1], "edge")
	h.Apply(`{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: petrel.local/hello:v1,
		args: [serve, --listen, ':8080'], ports: [{containerPort: 8080}], readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}}]}}`)
	h.Apply(`{apiVersion: v1, kind: Pod, metadata: {name: private}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: petrel.local/hello:v1,
		args: [serve, --listen, '127.0.0.1:8080']}]}}`)
	h.Apply(`{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}`)
	h.Running("web")
	h.Running("private")
	says := func(path string, wants ...string) {
		t.Helper()
		h.Eventually(time.Minute, path+" answers "+strings.Join(wants, ", "), func() error {
			got, err := h.TryKubectl("get", "--raw", path)
			for _, want := range wants {
				if !strings.Contains(got+fmt.Sprint(err), want) {
					return fmt.Errorf("%s, %v", got, err)
				}
			}
			return nil
		})
	}
	const pods, services = "/api/v1/namespaces/default/pods/", "/api/v1/namespaces/default/services/"
	says(pods+"web/proxy/", "web")
	says(services+"web:http/proxy/", "web")
	says(services+"http:web:80/proxy/", "web")
	says(pods+"private:8080/proxy/", "error trying to reach service", "refused")
	says("/api/v1/nodes/edge/proxy/healthz", "ok")
	says("/api/v1/nodes/edge:10250/proxy/stats/summary", `"nodeName":"edge"`, `"name":"web"`, "usageNanoCores")
	says("/api/v1/nodes/edge/proxy/metrics/resource", `container_cpu_usage_seconds_total{container="c",namespace="default",pod="web"}`)
	says("/api/v1/nodes/edge/proxy/pods", `"name":"web"`)
	for _, args := range [][]string{{"top", "nodes"}, {"top", "pods"}, {"top", "pods", "--containers", "-l", "app=web"}, {"get", "pods.metrics.k8s.io"}} {
		want := "web"
		if args[1] == "nodes" {
			want = "edge"
		}
		if got := h.Kubectl(args...); !strings.Contains(got, want) || !strings.Contains(got, "Mi") && !strings.Contains(got, "Ki") {
			t.Errorf("kubectl %v: %s", args, got)
		}
	}
	a.PowerCut()
	h.Eventually(2*time.Minute, "the node is dark", func() error {
		if got, err := h.TryKubectl("get", "--raw", pods+"web/proxy/"); err == nil || !strings.Contains(err.Error()+got, "it was last heard of at ") {
			return fmt.Errorf("%s, %v", got, err)
		}
		return nil
	})
	if got, err := h.TryKubectl("top", "nodes"); strings.Contains(got, "edge ") && !strings.Contains(got, "unknown") {
		t.Errorf("a dark node has metrics: %s, %v", got, err)
	}
}
