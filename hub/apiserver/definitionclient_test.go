package apiserver_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"petrel.dev/petrel/hub/webhook"
)

// kubectl explains, validates, applies and patches what a definition describes, and no longer when it is gone.
func TestDefinitionWithKubectl(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, webhook.New(nil))
	step := func(stdin string, code int, want string, args ...string) {
		t.Helper()
		if out, got := h.kubectl(stdin, args...); got != code || !strings.Contains(out, want) {
			t.Errorf("kubectl %s: code %d, %s", strings.Join(args, " "), got, out)
		}
	}
	crd := definition(thingVersion("v1", true, `{type: object, description: "What a thing should be.", properties: {
      size: {type: integer, description: "Its size."},
      ports: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {name: {type: string}, number: {type: integer}}}},
      pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}}}`))
	step(crd, 0, "customresourcedefinition.apiextensions.k8s.io/things.example.dev created", "apply", "-f", "-")
	step("", 0, "condition met", "wait", "--for=condition=Established", "crd/things.example.dev", "--timeout=20s")
	step("", 0, "things.example.dev", "get", "crd")
	step("", 0, "Its size.", "explain", "things.spec")
	step("", 0, "ports\t<[]Object>", "explain", "things", "--recursive")
	step("", 0, "Standard object's metadata", "explain", "thing")
	manifest := func(spec string) string {
		return "apiVersion: example.dev/v1\nkind: Thing\nmetadata: {name: a, namespace: default}\nspec: " + spec + "\n"
	}
	step(manifest("{size: 1, ports: [{name: web, number: 80}]}"), 0, "thing.example.dev/a created", "apply", "-f", "-")
	step(manifest("{size: 2, ports: [{name: web, number: 80}]}"), 0, "thing.example.dev/a configured", "apply", "-f", "-")
	step(manifest("{size: 2, sice: 3}"), 1, `unknown field "spec.sice"`, "apply", "-f", "-")
	step("", 0, "patched", "patch", "thing", "a", "-n", "default", "--type=merge", "-p", `{"spec":{"size":9}}`)
	applied := strings.Replace(manifest("{size: 1, ports: [{name: web, number: 80}]}"), "name: a", "name: b", 1)
	step(applied, 0, "thing.example.dev/b serverside-applied", "apply", "--server-side", "-f", "-")
	manifest = func(spec string) string {
		return "apiVersion: example.dev/v1\nkind: Thing\nmetadata: {name: b, namespace: default}\nspec: " + spec + "\n"
	}
	step(manifest("{ports: [{name: admin, number: 81}]}"), 0, "thing.example.dev/b serverside-applied", "apply", "--server-side", "--field-manager=other", "-f", "-")
	step("", 0, "admin 80 81", "get", "thing", "b", "-n", "default", "-o", `jsonpath={.spec.ports[1].name} {.spec.ports[0].number} {.spec.ports[1].number}`)
	step(manifest("{size: 3}"), 1, "conflict with \"kubectl\": .spec.size", "apply", "--server-side", "--field-manager=other", "-f", "-")
	step(manifest("{sice: 3}"), 1, ".spec.sice: field not declared in schema", "apply", "--server-side", "--field-manager=other", "--validate=false", "-f", "-")
	for path, says := range map[string]string{"/openapi/v2": `"dev.example.v1.Thing"`, "/openapi/v3/apis/example.dev/v1": `"dev.example.v1.Thing"`} {
		if a := h.do("GET", path, ""); a.code != 200 || !strings.Contains(a.body, says) {
			t.Errorf("%s: %d", path, a.code)
		}
	}
	step("", 0, "deleted", "delete", "crd", "things.example.dev", "--timeout=20s")
	eventually(t, "its description is gone", func() bool { return h.do("GET", "/openapi/v3/apis/example.dev/v1", "").code == 404 })
	if strings.Contains(h.do("GET", "/openapi/v2", "").body, "dev.example.v1.Thing") {
		t.Error("version 2 still describes it")
	}
	if out, _ := h.kubectl("", "api-resources", "--api-group=example.dev", "--cached=false"); strings.Contains(out, "things") {
		t.Errorf("discovery still has it: %s", out)
	}
}

// TestKubectlDefinitions runs the stories in testdata/definitions: the real kubectl against a hub that serves custom kinds.
func TestKubectlDefinitions(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/definitions",
		Setup: func(env *testscript.Env) error {
			h := definitionHub(t, nil)
			env.Setenv("KUBECONFIG", h.kubeconfig)
			env.Setenv("PATH", filepath.Dir(kubectlPath)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
	})
}

// Versions are shown by maturity, groups behind those of Kubernetes; a version that is not served is nowhere.
func TestDefinitionDiscovery(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	unserved := strings.Replace(thingVersion("v1alpha1", false, "{type: object}"), "served: true", "served: false", 1)
	h.define(definition(thingVersion("v1beta1", true, "{type: object}"), unserved, thingVersion("v1", false, "{type: object}"), thingVersion("v2", false, "{type: object}")))
	var group struct {
		Versions         []struct{ Version string }
		PreferredVersion struct{ Version string }
	}
	if err := json.Unmarshal([]byte(h.do("GET", "/apis/example.dev", "").body), &group); err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, v := range group.Versions {
		versions = append(versions, v.Version)
	}
	if got := strings.Join(versions, " "); got != "v2 v1 v1beta1" || group.PreferredVersion.Version != "v2" {
		t.Errorf("versions: %s, preferred %s", got, group.PreferredVersion.Version)
	}
	aggregated := h.do("GET", "/apis", "", "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").body
	if i, j := strings.Index(aggregated, `"name":"example.dev"`), strings.LastIndex(aggregated, `.k8s.io","creation`); i < 0 || j > i || strings.Contains(aggregated, "v1alpha1") {
		t.Errorf("aggregated: %d %d %s", i, j, aggregated)
	}
	h.asks(
		ask{"not served", "GET", "/apis/example.dev/v1alpha1/namespaces/default/things", "", "", 404, "could not find the requested resource"},
		ask{"made in v1", "POST", things, thing("a", ""), jsonBody, 201, ""},
		ask{"is in v2", "GET", things2 + "/a", "", "", 200, `"apiVersion":"example.dev/v2"`},
	)
}
