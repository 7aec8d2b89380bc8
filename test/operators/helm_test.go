package operators

import (
	"strings"
	"testing"
)

// TestHelm runs a release through its life with helm 3, which applies on the client, and helm 4, which applies on the server: the chart
// has a definition of a kind, an object of it, hooks around every step and a test.
func TestHelm(t *testing.T) {
	for _, v := range []struct {
		name, pkg string
		applies   bool // on the server
	}{
		{name: "helm3", pkg: "helm.sh/helm/v3/cmd/helm"},
		{name: "helm4", pkg: "helm.sh/helm/v4/cmd/helm", applies: true},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			helm := tool(t, v.name, v.pkg)
			h := startHub(t)
			h.kubelet()
			release(h, helm)
			if v.applies {
				h.must("Apply", "configmap/shop", `{.metadata.managedFields[?(@.manager=="helm")].operation}`)
				conflict(h, helm)
			}
			remove(h, helm)
		})
	}
}

// release installs, upgrades, fails to upgrade, tests and rolls back.
func release(h *hub, helm string) {
	h.t.Helper()
	const chart = "testdata/chart"
	h.run(helm, "install", "shop", chart, "--wait")
	h.must("2", "deployment/shop", "{.status.readyReplicas}")
	h.must("2red", "gadget/shop", "{.spec.size}{.spec.color}")
	for _, hook := range []string{"pre-install", "post-install"} {
		h.must("Succeeded", "pod/shop-"+hook, "{.status.phase}")
	}

	h.run(helm, "upgrade", "shop", chart, "--wait", "--set", "replicas=3,greeting=hi")
	h.must("3", "deployment/shop", "{.status.readyReplicas}")
	h.must("3", "gadget/shop", "{.spec.size}")
	h.must("hi", "configmap/shop", "{.data.greeting}")
	h.must("Succeeded", "pod/shop-post-upgrade", "{.status.phase}")

	if _, err := h.try("", helm, "upgrade", "shop", chart, "--set", "broken=true"); err == nil || !strings.Contains(err.Error(), "should be greater than or equal to 1") {
		h.t.Errorf("upgrade to an invalid object: %v", err)
	}
	if out := h.run(helm, "test", "shop"); !strings.Contains(out, "Phase:          Succeeded") {
		h.t.Errorf("test: %s", out)
	}
	h.must("Succeeded", "pod/shop-answers", "{.status.phase}")

	h.run(helm, "rollback", "shop", "1", "--wait")
	h.must("2", "deployment/shop", "{.status.readyReplicas}")
	h.must("hello", "configmap/shop", "{.data.greeting}")
	h.must("Succeeded", "pod/shop-pre-rollback", "{.status.phase}")
	if out := h.run(helm, "history", "shop"); !strings.Contains(out, "failed") || !strings.Contains(out, "Rollback to 1") {
		h.t.Errorf("history: %s", out)
	}
}

// conflict checks that a field that another manager took is not overwritten without force.
func conflict(h *hub, helm string) {
	h.t.Helper()
	h.kubectl("patch", "configmap/shop", "--field-manager=someone", "-p", `{"data":{"greeting":"mine"}}`)
	_, err := h.try("", helm, "upgrade", "shop", "testdata/chart", "--set", "greeting=theirs", "--force-conflicts=false")
	if err == nil || !strings.Contains(err.Error(), `conflict with "someone" using v1: .data.greeting`) {
		h.t.Errorf("upgrade of a field of another manager: %v", err)
	}
	h.must("mine", "configmap/shop", "{.data.greeting}")
	h.run(helm, "upgrade", "shop", "testdata/chart", "--set", "greeting=theirs", "--force-conflicts")
	h.must("theirs", "configmap/shop", "{.data.greeting}")
}

// remove uninstalls; the definition of the kind stays, as helm documents.
func remove(h *hub, helm string) {
	h.t.Helper()
	h.run(helm, "uninstall", "shop", "--wait")
	h.must("Succeeded", "pod/shop-pre-delete", "{.status.phase}")
	for _, gone := range []string{"deployment/shop", "configmap/shop", "service/shop", "gadget/shop"} {
		if out, err := h.tryKubectl("", "get", gone, "--ignore-not-found", "-o", "name"); err != nil || out != "" {
			h.t.Errorf("after the removal: %q %v", out, err)
		}
	}
	h.must("gadgets.shop.example", "crd/gadgets.shop.example", "{.metadata.name}")
}
