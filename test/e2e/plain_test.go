package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// What a user of kubectl looks at without thinking about it: a node's Lease, a fresh pod's events, how drain empties a node.
func TestPlainView(t *testing.T) {
	t.Parallel()
	ms := harness.LAN(t, "plain", 3)
	h := harness.StartHub(t, ms[0])
	h.Join(ms[1], "one")
	edge := h.Join(ms[2], "two")

	h.Sub("a lease for each node", func(t *testing.T) {
		if out := h.Kubectl("get", "leases", "-n", "kube-node-lease", "-o", "custom-columns=:metadata.name,:spec.holderIdentity"); strings.Join(strings.Fields(out), " ") != "one one two two" {
			t.Errorf("leases are\n%s", out)
		}
		if out := h.Kubectl("get", "leases", "-A"); strings.Count(out, "kube-node-lease") != 2 {
			t.Errorf("leases everywhere are\n%s", out)
		}
		out := h.Kubectl("describe", "node", "two")
		for _, want := range []string{"HolderIdentity:  two", "AcquireTime:     <unset>", "RenewTime:       " + time.Now().UTC().Weekday().String()[:3]} {
			if !strings.Contains(out, want) {
				t.Errorf("describe does not say %q:\n%s", want, out)
			}
		}
		if out, err := h.TryKubectl("delete", "lease", "-n", "kube-node-lease", "two"); err == nil || !strings.Contains(out, "the hub itself makes the leases") {
			t.Errorf("deleting a node's lease says %v: %s", err, out)
		}
	})
	h.Sub("no failed mount in a fresh pod's life", func(t *testing.T) {
		h.Kubectl("create", "namespace", "fresh")
		h.Eventually(10*time.Second, "the namespace has its account", func() error {
			_, err := h.TryKubectl("get", "serviceaccount", "default", "-n", "fresh")
			return err
		})
		h.Kubectl("create", "configmap", "c", "-n", "fresh", "--from-literal=a=b")
		for i := range 3 {
			name := fmt.Sprint("d", i)
			h.Kubectl("create", "deployment", name, "-n", "fresh", "--image=petrel.local/hello:v1", "--replicas=4")
		}
		h.Kubectl("wait", "deployment", "--all", "-n", "fresh", "--for=condition=Available", "--timeout=2m")
		out := h.Kubectl("get", "events", "-n", "fresh", "-o", "custom-columns=:reason,:message")
		if strings.Contains(out, "FailedMount") || !strings.Contains(out, "Started") {
			t.Errorf("events are\n%s", out)
		}
		mounts := h.Kubectl("get", "pods", "-n", "fresh", "-o", "jsonpath={.items[*].spec.volumes[*].projected.sources[*].serviceAccountToken.path}")
		if len(strings.Fields(mounts)) != 12 {
			t.Errorf("the pods have tokens %q", mounts)
		}
	})
	h.Sub("drain evicts", func(t *testing.T) {
		out := h.Kubectl("drain", "two", "-v=6", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=2m")
		if !strings.Contains(out, "/eviction") || strings.Contains(out, `verb="DELETE"`) || !strings.Contains(out, "evicted") {
			t.Errorf("drain says\n%s", out)
		}
		if out := h.Kubectl("get", "pods", "-n", "fresh", "--field-selector=spec.nodeName=two", "-o", "name"); out != "" {
			t.Errorf("pods left on the node:\n%s", out)
		}
	})
	h.Sub("a lease goes with its node", func(t *testing.T) {
		edge.Stop(syscall.SIGTERM)
		h.Kubectl("delete", "node", "two")
		if out := h.Kubectl("get", "leases", "-n", "kube-node-lease", "-o", "name"); strings.TrimSpace(out) != "lease.coordination.k8s.io/one" {
			t.Errorf("leases are\n%s", out)
		}
	})
}
