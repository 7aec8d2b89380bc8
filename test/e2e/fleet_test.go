package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Two machines and a hub on one LAN: pods spread over the nodes, and each reaches the other's through Services, by address
// and by name.
func TestTwoMachines(t *testing.T) { eachBroker(t, "two", 3, twoMachines) }

func twoMachines(t *testing.T, ms []machine, h *hub) {
	h.join(ms[1], "one")
	h.join(ms[2], "two")

	h.apply(fmt.Sprintf(helloManifest, 4))
	h.available("hello")
	nodes := strings.Fields(h.k("get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].spec.nodeName}"))
	count := map[string]int{}
	for _, n := range nodes {
		count[n]++
	}
	if count["one"] != 2 || count["two"] != 2 {
		t.Errorf("four pods should spread evenly over two nodes, not %v", count)
	}

	ip := h.k("get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	for _, from := range []machine{ms[1], ms[2]} {
		eventually(t, 15*time.Second, "the Service reaches the pods of both nodes from "+from.ns, func() error {
			seen := map[string]bool{}
			for range 24 {
				out, err := fetch(from, "http://"+ip+"/")
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
		pod := strings.Fields(h.k("get", "pods", "-l", "app=hello", "--field-selector=spec.nodeName="+node, "-o", "name"))[0]
		h.eventually(10*time.Second, "DNS and Service work in "+pod, func() error {
			out, err := h.try("exec", pod, "--", "/petrel", "fetch", "http://hello.default.svc.cluster.local/")
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
	h.k("drain", "one", "--force", "--timeout=40s")
	h.available("hello")
	if left := strings.TrimSpace(h.k("get", "pods", "-l", "app=hello", "--field-selector=spec.nodeName=one", "-o", "name")); left != "" {
		t.Errorf("drained node still has %s", left)
	}
	h.k("uncordon", "one")
}
