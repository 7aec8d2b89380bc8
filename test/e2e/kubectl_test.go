package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/test/harness"
)

// What people do with an unmodified kubectl, on one node.
func TestKubectl(t *testing.T) { harness.EachBroker(t, "kubectl", 2, kubectlVerbs) }

func kubectlVerbs(t *testing.T, ms []harness.Machine, h *harness.Hub) {
	h.Join(ms[1], "edge")
	has := func(t *testing.T, out string, wants ...string) {
		t.Helper()
		for _, w := range wants {
			if !regexp.MustCompile(w).MatchString(out) {
				t.Errorf("no match for %q in:\n%s", w, out)
			}
		}
	}

	h.Sub("version", func(t *testing.T) { has(t, h.Kubectl("version", "-o", "json"), `"gitVersion": "v1\.36\.\d+\+petrel`) })
	h.Sub("api-resources", func(t *testing.T) {
		has(t, h.Kubectl("api-resources"), `deployments\s+deploy\s+apps/v1\s+true\s+Deployment`, `pods\s+po\s+v1`, `nodes\s+no\s+v1\s+false`)
	})
	h.Sub("explain", func(t *testing.T) {
		has(t, h.Kubectl("explain", "deployment.spec.strategy"), `rollingUpdate\s+<RollingUpdateDeployment>`, "KIND:\\s+Deployment")
	})
	h.Sub("apply", func(t *testing.T) {
		has(t, h.Apply(fmt.Sprintf(helloManifest, 2)), "deployment.apps/hello created", "service/hello created")
		has(t, h.Apply(fmt.Sprintf(helloManifest, 2)), "deployment.apps/hello unchanged", "service/hello unchanged")
		h.Available("hello")
	})
	h.Sub("get", func(t *testing.T) {
		has(t, h.Kubectl("get", "deploy,svc,pods"), `deployment.apps/hello\s+2/2\s+2\s+2`, `service/hello\s+ClusterIP\s+10\.43\.`, `pod/hello-\S+\s+1/1\s+Running\s+0`)
		has(t, h.Kubectl("get", "pods", "-o", "wide"), `NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE\s+IP\s+NODE`, `10\.42\.\d+\.\d+\s+edge`)
		has(t, h.Kubectl("get", "nodes", "-o", "wide"), `edge\s+Ready\s+\S+\s+\S+\s+v1\.36\S+\s+10\.99\.0\.2`)
		has(t, h.Kubectl("get", "pods", "-A", "-l", "app=hello"), `default\s+hello-`)
		has(t, h.Kubectl("get", "pods", "-l", "app=nothing"), "No resources found")
		has(t, h.Kubectl("get", "deploy", "hello", "-o", "yaml"), "kind: Deployment", "replicas: 2")
		has(t, h.Kubectl("get", "deploy", "hello", "-o", "json"), `"kind": "Deployment"`)
		has(t, h.Kubectl("get", "deploy", "-o", "name"), `deployment.apps/hello`)
		has(t, h.Kubectl("get", "all"), "deployment.apps/hello", "replicaset.apps/hello", "service/kubernetes")
	})
	h.Sub("describe", func(t *testing.T) {
		has(t, h.Kubectl("describe", "deploy", "hello"), `Replicas:\s+2 desired \| 2 updated \| 2 total \| 2 available`, "ScalingReplicaSet")
		has(t, h.Kubectl("describe", "pods"), `Status:\s+Running`, "Scheduled", "Started")
		has(t, h.Kubectl("describe", "node", "edge"), `Roles:`, `Ready\s+True`, "hello-")
		has(t, h.Kubectl("describe", "svc", "hello"), `Endpoints:\s+10\.42\.\d+\.\d+:8080`)
	})
	h.Sub("events", func(t *testing.T) {
		h.Eventually(10*time.Second, "events arrive", func() error {
			out := h.Kubectl("events")
			for _, w := range []string{"Scheduled", "Started", "ScalingReplicaSet"} {
				if !strings.Contains(out, w) {
					return fmt.Errorf("no %s among\n%s", w, out)
				}
			}
			return nil
		})
	})
	pod := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].metadata.name}"))[0]
	h.Sub("logs", func(t *testing.T) {
		has(t, h.Kubectl("logs", pod), "listening on")
		has(t, h.Kubectl("logs", pod, "-c", "hello", "--tail=1", "--timestamps"), `^\d{4}-\d\d-\d\dT`)
		if _, err := h.TryKubectl("logs", pod, "-c", "nobody"); err == nil || !strings.Contains(err.Error(), "container nobody is not valid for pod") {
			t.Errorf("an unknown container gave %v", err)
		}
		if _, err := h.TryKubectl("logs", pod, "--previous"); err == nil || !strings.Contains(err.Error(), "previous terminated container") {
			t.Errorf("--previous of a container without a past gave %v", err)
		}
	})
	h.Sub("exec", func(t *testing.T) {
		has(t, h.Kubectl("exec", pod, "--", "/petrel", "version", "--client"), "petrel .*Kubernetes API")
		_, err := h.TryKubectl("exec", pod, "--", "/petrel", "no-such-command")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("the exit code of the command should be kubectl's: %v", err)
		}
		out, err := h.TryKubectlIn("", "exec", "-i", pod, "--", "/petrel", "fetch", "http://127.0.0.1:8080/healthz")
		if err != nil {
			t.Error(err)
		}
		has(t, out, "ok")
	})
	h.Sub("debug", func(t *testing.T) {
		out, err := h.TryKubectlIn("", "debug", "-i", pod, "--image=petrel.local/hello:v1", "--target=hello", "-c", "look", "--", "/petrel", "fetch", "http://127.0.0.1:8080/healthz")
		if err != nil {
			t.Error(err)
		}
		has(t, out, "ok")
		h.Eventually(10*time.Second, "how it ended is known", func() error {
			if out := h.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated}"); !strings.Contains(out, `"exitCode":0`) {
				return fmt.Errorf("terminated: %s", out)
			}
			return nil
		})
		has(t, h.Kubectl("get", "pod", pod), `1/1\s+Running\s+0`)
		has(t, h.Kubectl("describe", "pod", pod), "Ephemeral Containers:", "look:")
	})
	h.Sub("scale", func(t *testing.T) {
		has(t, h.Kubectl("scale", "deploy/hello", "--replicas=3"), "scaled")
		h.Available("hello")
		has(t, h.Kubectl("get", "deploy", "hello"), `3/3`)
	})
	h.Sub("label and annotate", func(t *testing.T) {
		has(t, h.Kubectl("label", "deploy", "hello", "tier=web"), "labeled")
		has(t, h.Kubectl("get", "deploy", "-l", "tier=web", "-o", "name"), "hello")
		has(t, h.Kubectl("annotate", "deploy", "hello", "note=x"), "annotated")
	})
	h.Sub("patch and rollout", func(t *testing.T) {
		has(t, h.Kubectl("patch", "deploy", "hello", "-p", `{"spec":{"template":{"metadata":{"annotations":{"v":"2"}}}}}`), "patched")
		h.Available("hello")
		has(t, h.Kubectl("patch", "deploy", "hello", "--type=json", "-p", `[{"op":"replace","path":"/spec/replicas","value":2}]`), "patched")
		has(t, h.Kubectl("patch", "deploy", "hello", "--type=merge", "-p", `{"metadata":{"labels":{"tier":null}}}`), "patched")
		has(t, h.Kubectl("rollout", "history", "deploy/hello"), `2\s+<none>`)
		has(t, h.Kubectl("rollout", "undo", "deploy/hello"), "rolled back")
		h.Available("hello")
	})
	h.Sub("edit", func(t *testing.T) {
		editor := filepath.Join(t.TempDir(), "editor")
		if err := os.WriteFile(editor, []byte("#!/bin/sh\nexec sed -i 's/^  replicas: 2$/  replicas: 1/' \"$1\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		h.Env = []string{"KUBE_EDITOR=" + editor}
		has(t, h.Kubectl("edit", "deploy", "hello"), "edited")
		h.Available("hello")
		has(t, h.Kubectl("get", "deploy", "hello"), `1/1`)
	})
	h.Sub("wait and delete", func(t *testing.T) {
		has(t, h.Kubectl("wait", "--for=condition=Available", "deploy/hello", "--timeout=2m"), "condition met")
		has(t, h.Kubectl("create", "configmap", "cm", "--from-literal=a=b"), "created")
		has(t, h.Kubectl("delete", "configmap", "cm"), "deleted")
		victim := strings.Fields(h.Kubectl("get", "pods", "-l", "app=hello", "-o", "name"))[0]
		has(t, h.Kubectl("delete", victim, "--grace-period=1"), "deleted")
		h.Available("hello")
	})
	h.Sub("delete with cascade", func(t *testing.T) {
		h.Kubectl("delete", "deploy", "hello", "--cascade=foreground")
		if out := h.Kubectl("get", "rs,pods", "-l", "app=hello", "-o", "name"); strings.TrimSpace(out) != "" {
			t.Errorf("foreground deletion left %s", out)
		}
	})
	h.Sub("namespace", func(t *testing.T) {
		h.Kubectl("create", "namespace", "tmp")
		h.Kubectl("create", "deployment", "x", "--image=petrel.local/hello:v1", "-n", "tmp")
		h.Kubectl("rollout", "status", "deploy/x", "-n", "tmp", "--timeout=2m")
		h.Kubectl("delete", "namespace", "tmp", "--timeout=2m")
		if _, err := h.TryKubectl("get", "namespace", "tmp"); err == nil {
			t.Error("the namespace is still there")
		}
	})
}

// Bad input gets an error that names the thing, and changes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	h := harness.StartHub(t, harness.Here)
	deployment := fmt.Sprintf(helloManifest, 1)
	for _, c := range []struct{ name, manifest, want string }{
		{"unknown field", strings.Replace(deployment, "replicas:", "replicass: 3\n  replicas:", 1), `unknown field "spec.replicass"`},
		{"wrong type", strings.Replace(deployment, "replicas: 1", "replicas: many", 1), "replicas"},
		{"name too long", strings.Replace(deployment, "name: hello}", "name: "+strings.Repeat("x", 300)+"}", 1), "no more than 253"},
		{"invalid port", strings.Replace(deployment, "containerPort: 8080", "containerPort: 80800", 1), "must be between 1 and 65535"},
		{"broken YAML", "apiVersion: v1\nkind: [", "yaml"},
		{"unknown kind", "apiVersion: apps/v1\nkind: Deploymint\nmetadata: {name: x}", `Deploymint`},
	} {
		h.Sub(c.name, func(t *testing.T) {
			out, err := h.TryKubectlIn(c.manifest, "create", "-f", "-", "--validate=strict")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("kubectl: got %v (%s), want an error with %q", err, out, c.want)
			}
			cmd := exec.Command(harness.Petrel, "apply", "--kubeconfig", h.Kubeconfig, "-f", "-")
			cmd.Stdin = strings.NewReader(c.manifest)
			text, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(text), c.want) {
				t.Errorf("petrel apply: got %v: %s; want an error with %q", err, text, c.want)
			}
		})
	}
	if out := h.Kubectl("get", "deploy", "-A", "-o", "name"); out != "" {
		t.Errorf("something was created: %s", out)
	}

	h.Sub("one bad document of several changes nothing", func(t *testing.T) {
		cmd := exec.Command(harness.Petrel, "apply", "--kubeconfig", h.Kubeconfig, "-f", "-")
		cmd.Stdin = strings.NewReader("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n---\napiVersion: v1\nkind: Nonsense\nmetadata: {name: bad}\n")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "document 2") {
			t.Errorf("got %v: %s", err, out)
		}
		if out, err := h.TryKubectl("get", "configmap", "good"); err == nil {
			t.Errorf("the good document was applied: %s", out)
		}
	})
	h.Sub("a manifest of 10 MB", func(t *testing.T) {
		big := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata:\n  x: " + strings.Repeat("y", 10<<20)
		out, err := h.TryKubectlIn(big, "create", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), "limit is") {
			t.Errorf("kubectl: got %v: %s", err, harness.Tail(out, 1))
		}
		cmd := exec.Command(harness.Petrel, "apply", "--kubeconfig", h.Kubeconfig, "-f", "-")
		cmd.Stdin = strings.NewReader(big)
		text, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(text), "limit is") || len(text) > 4096 {
			t.Errorf("petrel apply: got %v: %.300s", err, text)
		}
		if out, err := h.TryKubectl("get", "configmap", "big"); err == nil {
			t.Errorf("it is there: %s", out)
		}
	})
	h.Sub("the port is in use", func(t *testing.T) {
		out, err := exec.Command(harness.Petrel, "hub", "--data-dir", t.TempDir(), "--listen", h.Address).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "address already in use") || !strings.Contains(string(out), "--listen") {
			t.Errorf("got %v: %s", err, out)
		}
	})
}
