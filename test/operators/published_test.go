package operators

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCertManager lets cert-manager's controllers issue a certificate from a self-signed Issuer.
func TestCertManager(t *testing.T) {
	published(t)
	t.Parallel()
	h := startHub(t)
	h.definitions(".", "github.com/cert-manager/cert-manager", "deploy/crds")
	h.start("cert-manager", tool(t, "certmanager", "./certmanager"), h.kubeconfig)
	h.apply(`
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: own}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: shop}
spec:
  secretName: shop-tls
  dnsNames: [shop.example]
  issuerRef: {name: own}
`)
	h.eventually("the certificate is issued", func() error {
		return errors.Join(
			h.is("True", "issuer/own", `{.status.conditions[?(@.type=="Ready")].status}`),
			h.is("True1", "certificate.cert-manager.io/shop", `{.status.conditions[?(@.type=="Ready")].status}{.status.revision}`))
	})
	h.must("kubernetes.io/tls", "secret/shop-tls", "{.type}")
	h.must("True", "certificaterequest/shop-1", `{.status.conditions[?(@.type=="Approved")].status}`)
	if table := h.kubectl("get", "certificates"); !strings.Contains(table, "READY") || !strings.Contains(table, "shop-tls") {
		t.Errorf("columns of its kind: %s", table)
	}
	h.kubectl("delete", "secret", "shop-tls")
	h.eventually("a lost Secret is issued again", func() error { return h.is("kubernetes.io/tls", "secret/shop-tls", "{.type}") })
}

// TestPrometheusOperator lets prometheus-operator make a StatefulSet and its configuration from a Prometheus object, and choose a ServiceMonitor.
func TestPrometheusOperator(t *testing.T) {
	published(t)
	t.Parallel()
	h := startHub(t)
	h.definitions("prometheus", "github.com/prometheus-operator/prometheus-operator", "example/prometheus-operator-crd")
	operator := toolIn(t, "prometheus", "prometheus-operator", "github.com/prometheus-operator/prometheus-operator/cmd/operator")
	h.start("prometheus-operator", operator, fmt.Sprintf("--web.listen-address=127.0.0.1:%d", freePort(t)))
	h.apply(`
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: shop, labels: {team: shop}}
spec:
  selector: {matchLabels: {app: shop}}
  endpoints: [{port: http}]
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: demo}
spec:
  replicas: 2
  serviceMonitorSelector: {matchLabels: {team: shop}}
`)
	h.eventually("it makes a StatefulSet and what that mounts", func() error {
		return errors.Join(
			h.is("2prometheus-operated", "statefulset/prometheus-demo", "{.spec.replicas}{.spec.serviceName}"),
			h.is("Opaque", "secret/prometheus-demo", "{.type}"),
			h.is("None", "service/prometheus-operated", "{.spec.clusterIP}"))
	})
	h.eventually("it reports", func() error {
		return h.is("True", "prometheus/demo", `{.status.conditions[?(@.type=="Reconciled")].status}`)
	})
	h.kubectl("scale", "prometheus/demo", "--replicas=2") // its definition scales shards
	h.eventually("the scale subresource makes a shard", func() error {
		return h.is("2", "statefulset/prometheus-demo-shard-1", "{.spec.replicas}")
	})
}

// TestArgoRollouts lets argo-rollouts bring out a Rollout, hold a new version at a canary step, and go on when it is promoted.
func TestArgoRollouts(t *testing.T) {
	published(t)
	t.Parallel()
	h := startHub(t)
	h.kubelet()
	h.definitions("rollouts", "github.com/argoproj/argo-rollouts", "manifests/crds")
	controller := toolIn(t, "rollouts", "rollouts-controller", "github.com/argoproj/argo-rollouts/cmd/rollouts-controller")
	h.kubectl("create", "namespace", "argo-rollouts") // the Lease of its leader is there
	h.start("argo-rollouts", controller, "--kubeconfig", h.kubeconfig, "--namespace", "default",
		"--metricsPort", fmt.Sprint(freePort(t)), "--healthzPort", fmt.Sprint(freePort(t)))
	h.apply(`
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: shop}}
  strategy:
    canary:
      steps:
      - setWeight: 25
      - pause: {}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:1"}]}
`)
	h.eventually("the first version is there", func() error { return h.is("Healthy4", "rollout/shop", "{.status.phase}{.status.readyReplicas}") })
	h.kubectl("patch", "rollout/shop", "--type=json", "-p", `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"shop:2"}]`)
	h.eventually("one pod in four is a canary, and the rollout waits", func() error {
		return errors.Join(
			h.is("Paused1", "rollout/shop", "{.status.phase}{.status.currentStepIndex}"),
			h.images(1, "shop:2"), h.images(3, "shop:1"))
	})
	h.kubectl("patch", "rollout/shop", "--subresource=status", "--type=merge", "-p", `{"status":{"pauseConditions":null,"currentStepIndex":2}}`)
	h.eventually("the promoted version is everywhere", func() error {
		return errors.Join(h.is("Healthy", "rollout/shop", "{.status.phase}"), h.images(4, "shop:2"), h.images(0, "shop:1"))
	})
}

// TestDescheduler lets the descheduler, leader by a Lease, move pods off a node that they no longer fit, when their PodDisruptionBudget
// allows it and not before.
func TestDescheduler(t *testing.T) {
	published(t) // not parallel: its nodes do not last while other programs are compiled
	h := startHub(t)
	h.kubelet()
	policy := filepath.Join(h.dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(`
apiVersion: descheduler/v1alpha2
kind: DeschedulerPolicy
gracePeriodSeconds: 0 # no node runs that would end the pods
evictionFailureEventNotification: true
profiles:
- name: place
  pluginConfig:
  - name: RemovePodsViolatingNodeAffinity
    args: {nodeAffinityType: [requiredDuringSchedulingIgnoredDuringExecution]}
  plugins: {deschedule: {enabled: [RemovePodsViolatingNodeAffinity]}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start("descheduler", toolIn(t, "descheduler", "descheduler", "sigs.k8s.io/descheduler/cmd/descheduler"), "--kubeconfig", h.kubeconfig,
		"--policy-config-file", policy, "--descheduling-interval=1s", "--leader-elect", "--leader-elect-retry-period=1s", "--secure-port=0")
	h.eventually("it leads", func() error {
		out, err := h.tryKubectl("", "get", "lease/descheduler", "--namespace=kube-system", "-o", "jsonpath={.spec.holderIdentity}")
		if err == nil && out == "" {
			err = errors.New("nobody leads")
		}
		return err
	})
	h.node("north", "place=field")
	h.node("south", "place=barn")
	h.apply(`
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: shop}
spec: {minAvailable: 2, selector: {matchLabels: {app: shop}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers: [{name: shop, image: "shop:1"}]
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms: [{matchExpressions: [{key: place, operator: In, values: [field]}]}]
`)
	h.eventually("both pods are on the first node, and healthy", func() error {
		return errors.Join(h.is("2", "pdb/shop", "{.status.currentHealthy}"), h.on("north", 2), h.on("south", 0))
	})
	h.kubectl("label", "--overwrite", "node/north", "place=barn")
	h.kubectl("label", "--overwrite", "node/south", "place=field")
	h.eventually("the budget stops it", func() error {
		out, err := h.tryKubectl("", "get", "events.v1.events.k8s.io", "-o", "jsonpath={.items[*].note}")
		if err == nil && !strings.Contains(out, "disruption budget") {
			err = fmt.Errorf("events: %s", out)
		}
		return errors.Join(err, h.on("north", 2))
	})
	h.kubectl("patch", "pdb/shop", "--type=merge", "-p", `{"spec":{"minAvailable":1}}`)
	h.eventually("both pods have moved", func() error { return errors.Join(h.on("north", 0), h.on("south", 2)) })
}

// on checks how many pods are ready on a node.
func (h *hub) on(node string, want int) error {
	out, err := h.tryKubectl("", "get", "pods", "--field-selector=spec.nodeName="+node,
		"-o", `jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}`)
	if got := strings.Count(out, "True"); err == nil && got != want {
		err = fmt.Errorf("%d pods are ready on node %s, want %d", got, node, want)
	}
	return err
}

// images checks that so many pods run an image.
func (h *hub) images(want int, image string) error {
	out, err := h.tryKubectl("", "get", "pods", "-o", "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.spec.containers[0].image} {end}")
	if got := strings.Count(out, image); err == nil && got != want {
		err = fmt.Errorf("%d pods run %s, want %d", got, image, want)
	}
	return err
}

// published skips the tests whose programs take minutes to compile.
func published(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("`make operators` runs it")
	}
}

// definitions applies the CustomResourceDefinitions in a directory of a module, at the version that the go.mod in user names. A
// kustomization, which names the other files of its directory, is none of them.
func (h *hub) definitions(user, module, dir string) {
	h.t.Helper()
	out, err := exec.Command("go", "-C", user, "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		h.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		h.t.Fatalf("no definitions in %s of %s: %v", dir, module, err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		h.kubectl("apply", "--server-side", "-f", file)
	}
	h.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
}
