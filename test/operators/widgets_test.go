package operators

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/util/cert"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/go-logr/logr"

	"petrel.dev/petrel/test/operators/widgets"
)

// widgetsManifest takes the base64 form of the CA and the port of the webhooks.
const widgetsManifest = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.dev}
spec:
  group: example.dev
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {url: "https://127.0.0.1:%[2]d/convert", caBundle: %[1]s}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [width, height], properties: {width: {type: integer}, height: {type: integer}, color: {type: string}}}
          status: {type: object, properties: {area: {type: integer}, observedGeneration: {type: integer}}}
  - name: v1beta1
    served: true
    storage: false
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: string}, color: {type: string}}}
          status: {type: object, properties: {area: {type: integer}, observedGeneration: {type: integer}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: widgets}
webhooks:
- name: mutate.example.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "https://127.0.0.1:%[2]d/mutate-example-dev-v1-widget", caBundle: %[1]s}
  rules: [{apiGroups: [example.dev], apiVersions: [v1], resources: [widgets], operations: [CREATE, UPDATE]}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: widgets}
webhooks:
- name: validate.example.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "https://127.0.0.1:%[2]d/validate-example-dev-v1-widget", caBundle: %[1]s}
  rules: [{apiGroups: [example.dev], apiVersions: [v1], resources: [widgets], operations: [CREATE, UPDATE, DELETE]}]
`

// TestWidgets runs the operator in this process against a hub, and uses its kind with kubectl in both versions.
func TestWidgets(t *testing.T) {
	t.Parallel()
	log.SetLogger(logr.Discard())
	h := startHub(t)
	ca, dir := certificate(t)
	port := freePort(t)
	h.apply(fmt.Sprintf(widgetsManifest, base64.StdEncoding.EncodeToString(ca), port))
	h.kubectl("wait", "--for=condition=Established", "crd/widgets.example.dev", "--timeout=60s")

	ctx, cancel := context.WithCancel(ctrl.LoggerInto(context.Background(), logr.Discard()))
	ended := make(chan error, 1)
	go func() { ended <- widgets.Run(ctx, h.config, dir, port) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("operator: %v", err)
		}
		h.must("", "lease/widgets", "{.spec.holderIdentity}")
	}()

	h.eventually("a widget is taken once the webhooks answer", func() error {
		return h.create("apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: a}\nspec: {width: 3, height: 4}")
	})
	h.must("grey", "widget/a", "{.spec.color}")
	h.eventually("it is reconciled", func() error {
		return errors.Join(h.is("12", "widget/a", "{.status.area}"), h.is("12grey", "configmap/widget-a", "{.data.area}{.data.color}"))
	})
	h.must("Apply", "configmap/widget-a", `{.metadata.managedFields[?(@.manager=="widgets")].operation}`)
	h.must("3x4", "widgets.v1beta1.example.dev/a", "{.spec.size}")

	h.refuses("a widget has an area", "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: flat}\nspec: {width: 3, height: 0}")
	h.refuses("a widget keeps its color", "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: a}\nspec: {width: 3, height: 4, color: blue}")
	h.refuses(`size "big" is not of the form 3x4`, "apiVersion: example.dev/v1beta1\nkind: Widget\nmetadata: {name: old}\nspec: {size: big}")
	h.apply("apiVersion: example.dev/v1beta1\nkind: Widget\nmetadata: {name: old}\nspec: {size: 5x6, color: red}")
	h.must("5", "widget/old", "{.spec.width}")
	h.eventually("the old version is reconciled", func() error { return h.is("30red", "configmap/widget-old", "{.data.area}{.data.color}") })

	h.kubectl("delete", "configmap", "widget-a")
	h.eventually("what it owns comes back", func() error { return h.is("12", "configmap/widget-a", "{.data.area}") })
	if out := h.both("delete", "widget", "a"); !strings.Contains(out, "Warning: widget a will be missed") {
		t.Errorf("delete: %s", out)
	}
	h.eventually("what it owns is collected", func() error {
		out, err := h.tryKubectl("", "get", "configmap/widget-a", "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = errors.New("it is still there")
		}
		return err
	})
}

// create applies an object, and returns the error.
func (h *hub) create(manifest string) error {
	_, err := h.tryKubectl(manifest, "apply", "--server-side", "-f", "-")
	return err
}

// refuses checks that an object is refused for a reason.
func (h *hub) refuses(reason, manifest string) {
	h.t.Helper()
	if err := h.create(manifest); err == nil || !strings.Contains(err.Error(), reason) {
		h.t.Errorf("want %q, got %v", reason, err)
	}
}

// both runs kubectl in a shell that joins its outputs.
func (h *hub) both(args ...string) string {
	h.t.Helper()
	return h.run("/bin/sh", append([]string{"-c", `exec "$@" 2>&1`, "sh", kubectl}, args...)...)
}

// certificate makes a certificate for loopback, and the directory that controller-runtime reads it from.
func certificate(t *testing.T) (ca []byte, dir string) {
	t.Helper()
	pem, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, data := range map[string][]byte{"tls.crt": pem, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pem, dir
}

// ports counts those that freePort has tried; grows only.
var ports atomic.Uint32

// freePort returns a port of loopback for a program that is started later. It is below those that the kernel gives to connections,
// so that none of them takes it meanwhile, and differs from those of other runs.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + (os.Getpid()*64+int(ports.Add(1)))%12000
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
