package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// Two machines and a hub on one LAN: pods spread over the nodes, and each reaches the other's through Services, by address
// and by name.
func TestTwoMachines(t *testing.T) { harness.EachBroker(t, "two", 3, twoMachines) }

func twoMachines(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	h.Join(ms[1], "one")
	h.Join(ms[2], "two")

	h.Apply(fmt.Sprintf(helloManifest, 4))
	h.Available("hello")
	nodes := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].spec.nodeName}"))
	count := map[string]int{}
	for _, n := range nodes {
		count[n]++
	}
	if count["one"] != 2 || count["two"] != 2 {
		t.Errorf("four pods should spread evenly over two nodes, not %v", count)
	}

	ip := h.Kubectl("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	for _, from := range []harness.Machine{ms[1], ms[2]} {
		harness.Eventually(t, 15*time.Second, "the Service reaches the pods of both nodes from "+from.NS, func() error {
			seen := map[string]bool{}
			for range 24 {
				out, err := harness.Fetch(from, "http://"+ip+"/")
				if err != nil {
					return err
				}
				name := strings.Fields(strings.TrimPrefix(out, "Hello from "))[0]
				seen[name] = true
			}
			if len(seen) != 4 {
				return fmt.Errorf("only %v answered", seen)
			}
			return nil
		})
	}
	// From inside a pod of each node, by DNS name.
	for _, node := range []string{"one", "two"} {
		pod := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "--field-selector=spec.nodeName="+node, "-o", "name"))[0]
		h.Eventually(10*time.Second, "DNS and Service work in "+pod, func() error {
			out, err := h.TryKubectl("exec", pod, "--", "/petrel", "fetch", "http://hello.default.svc.cluster.local/")
			if err != nil {
				return err
			}
			if !strings.Contains(out, "Hello from hello-") {
				return fmt.Errorf("the answer was %q", out)
			}
			return nil
		})
	}

	// A drained node is emptied, and its pods come up on the other.
	h.Kubectl("drain", "one", "--force", "--timeout=2m")
	h.Available("hello")
	if left := strings.TrimSpace(h.Kubectl("get", "pods", "-l", "app=hello", "--field-selector=spec.nodeName=one", "-o", "name")); left != "" {
		t.Errorf("drained node still has %s", left)
	}
	h.Kubectl("uncordon", "one")
}
