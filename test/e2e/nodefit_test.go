package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// TestPublicPods covers public cases as a user meets them. What asks for something unusual runs with it, and the hub takes the
// status; what asks for something that this node cannot give is refused, with the reason and an event.
func TestPublicPods(t *testing.T) {
	t.Parallel()
	ms := harness.LAN(t, "public", 2)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "edge")
	const (
		own   = "containers: [{name: c, image: petrel.local/hello:v1, args: [serve, --listen, ':8080']%s}]"
		whole = "resources: {requests: {cpu: 100m, memory: 20Mi}, limits: {cpu: 200m, memory: 40Mi}}"
	)
	spec := func(containerMore, podMore string) string {
		return strings.TrimSuffix(fmt.Sprintf(own, containerMore)+", "+podMore, ", ")
	}
	for _, tt := range []struct{ name, spec, want string }{
		{"zero", spec(", resources: {requests: {memory: 64Mi}, limits: {cpu: 0, memory: 64Mi}}", ""), "Running Burstable"},
		{"whole", spec("", whole), "Running Burstable"},
		{"guaranteed", spec(", resources: {limits: {cpu: 100m, memory: 64Mi}}", ""), "Running Guaranteed"},
		{"addall", spec(", securityContext: {capabilities: {add: [ALL], drop: [SYS_ADMIN]}}", ""), "Running BestEffort"},
		{"sharepid", spec("", "shareProcessNamespace: true"), "Running BestEffort"},
		{"port", spec(", ports: [{containerPort: 8080, hostPort: 8099}]", ""), "Running BestEffort"},
		{"taken", spec(", ports: [{containerPort: 8080, hostPort: 8099}]", "nodeName: edge"), "Failed BestEffort NodePorts"},
		{"userns", spec("", "hostUsers: false"), "Pending BestEffort"},
		{"apparmor", spec("", "securityContext: {appArmorProfile: {type: Localhost, localhostProfile: nope}}"), "Failed BestEffort AppArmor"},
		{"sysctl", spec("", "securityContext: {sysctls: [{name: kernel.msgmax, value: '65536'}]}"), "Failed BestEffort SysctlForbidden"},
		{"windows", spec("", "nodeName: edge, os: {name: windows}"), "Failed BestEffort PodOSNotSupported"},
		{"selector", spec("", "nodeName: edge, nodeSelector: {disk: ssd}"), "Failed BestEffort NodeAffinity"},
		{"cpu", spec(", resources: {requests: {cpu: 1000}}", "nodeName: edge"), "Failed Burstable OutOfcpu"},
	} {
		if _, err := os.Stat("/sys/module/apparmor"); tt.name == "apparmor" && err == nil {
			continue // this machine has it; the profile is then looked for when the container starts
		}
		h.Apply(fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {terminationGracePeriodSeconds: 0, %s}}", tt.name, tt.spec))
		h.Eventually(time.Minute, tt.name+" is "+tt.want, func() error {
			got, err := h.TryKubectl("get", "pod", tt.name, "-o", "jsonpath={.status.phase} {.status.qosClass} {.status.reason}")
			if got = strings.TrimSpace(got); err != nil || got != tt.want {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
		reason, refused := strings.CutPrefix(tt.want, "Failed BestEffort ")
		if tt.name == "userns" {
			reason, refused = "FailedCreatePodSandBox", true
		}
		if refused {
			h.Eventually(time.Minute, "an event says why "+tt.name+" does not run", func() error {
				if got, err := h.TryKubectl("get", "events", "--field-selector", "involvedObject.name="+tt.name, "-o", "jsonpath={.items[*].reason}"); err != nil || !strings.Contains(got, reason) {
					return fmt.Errorf("%q, %v", got, err)
				}
				return nil
			})
		}
	}
}
