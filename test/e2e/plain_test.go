package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a user of kubectl looks at without thinking about it: a node's Lease, a fresh pod's events, how drain empties a node.
func TestPlainView(t *testing.T) {
	t.Parallel()
	ms := lan(t, "plain", 3)
	h := startHub(t, ms[0])
	h.join(ms[1], "one")
	edge := h.join(ms[2], "two")

	h.sub("a lease for each node", func(t *testing.T) {
		if out := h.k("get", "leases", "-n", "kube-node-lease", "-o", "custom-columns=:metadata.name,:spec.holderIdentity"); strings.Join(strings.Fields(out), " ") != "one one two two" {
			t.Errorf("leases are\n%s", out)
		}
		if out := h.k("get", "leases", "-A"); strings.Count(out, "kube-node-lease") != 2 {
			t.Errorf("leases everywhere are\n%s", out)
		}
		out := h.k("describe", "node", "two")
		for _, want := range []string{"HolderIdentity:  two", "AcquireTime:     <unset>", "RenewTime:       " + time.Now().UTC().Weekday().String()[:3]} {
			if !strings.Contains(out, want) {
				t.Errorf("describe does not say %q:\n%s", want, out)
			}
		}
		if out, err := h.try("delete", "lease", "-n", "kube-node-lease", "two"); err == nil || !strings.Contains(out, "the hub itself tells the leases") {
			t.Errorf("deleting a node's lease says %v: %s", err, out)
		}
	})
	h.sub("no failed mount in a fresh pod's life", func(t *testing.T) {
		h.k("create", "namespace", "fresh")
		h.eventually(10*time.Second, "the namespace has its account", func() error {
			_, err := h.try("get", "serviceaccount", "default", "-n", "fresh")
			return err
		})
		h.k("create", "configmap", "c", "-n", "fresh", "--from-literal=a=b")
		for i := range 3 {
			name := fmt.Sprint("d", i)
			h.k("create", "deployment", name, "-n", "fresh", "--image=petrel.local/hello:v1", "--replicas=4")
		}
		h.k("wait", "deployment", "--all", "-n", "fresh", "--for=condition=Available", "--timeout=90s")
		out := h.k("get", "events", "-n", "fresh", "-o", "custom-columns=:reason,:message")
		if strings.Contains(out, "FailedMount") || !strings.Contains(out, "Started") {
			t.Errorf("events are\n%s", out)
		}
		mounts := h.k("get", "pods", "-n", "fresh", "-o", "jsonpath={.items[*].spec.volumes[*].projected.sources[*].serviceAccountToken.path}")
		if len(strings.Fields(mounts)) != 12 {
			t.Errorf("the pods have tokens %q", mounts)
		}
	})
	h.sub("drain evicts", func(t *testing.T) {
		out := h.k("drain", "two", "-v=6", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
		if !strings.Contains(out, "/eviction") || strings.Contains(out, `verb="DELETE"`) || !strings.Contains(out, "evicted") {
			t.Errorf("drain says\n%s", out)
		}
		if out := h.k("get", "pods", "-n", "fresh", "--field-selector=spec.nodeName=two", "-o", "name"); out != "" {
			t.Errorf("pods left on the node:\n%s", out)
		}
	})
	h.sub("a lease goes with its node", func(t *testing.T) {
		edge.stop(syscall.SIGTERM)
		h.k("delete", "node", "two")
		if out := h.k("get", "leases", "-n", "kube-node-lease", "-o", "name"); strings.TrimSpace(out) != "lease.coordination.k8s.io/one" {
			t.Errorf("leases are\n%s", out)
		}
	})
}
