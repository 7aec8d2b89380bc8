package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/crd"
	"petrel.dev/petrel/hub/crd/conversion"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/kube"
)

const (
	definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	jsonBody    = "Content-Type: application/json"
	yamlBody    = "Content-Type: application/yaml"
	mergeBody   = "Content-Type: application/merge-patch+json"
)

// definitionHub is a hub that serves what CustomResourceDefinitions define.
func definitionHub(t *testing.T, webhooks conversion.Caller) *hub {
	h, _ := customHub(t)
	c := crd.New(crd.Config{Client: h.reg.Client(), Kinds: h.kinds, Read: h.readDefinition, Webhooks: webhooks, Meta: &openapi.Types{}})
	c.Load()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

func (h *hub) readDefinition(ctx context.Context, name string) (kube.Object, error) {
	k, _ := h.kinds.Lookup(kube.CustomResourceDefinition)
	res, err := h.reg.Get(ctx, resource.Target{Kind: k, Name: name}, nil)
	if err != nil {
		return nil, err
	}
	return k.Codec.Decode(res.JSON)
}

// definition returns the manifest of a definition of things.example.dev with these versions, in YAML.
func definition(versions ...string) string {
	return `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.dev}
spec:
  group: example.dev
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing, shortNames: [th], categories: [all]}
  versions:
` + strings.Join(versions, "")
}

// thingVersion is one version with a schema of the fields that spec has.
func thingVersion(name string, stored bool, spec string) string {
	return fmt.Sprintf(`  - name: %s
    served: true
    storage: %v
    schema: {openAPIV3Schema: {type: object, properties: {spec: %s, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`, name, stored, spec)
}

// define creates a definition, and waits until it is established.
func (h *hub) define(manifest string) *apiextensionsv1.CustomResourceDefinition {
	h.t.Helper()
	a := h.do("POST", definitions, manifest, yamlBody)
	if a.code != http.StatusCreated {
		h.t.Fatalf("%d %s", a.code, a.body)
	}
	var made apiextensionsv1.CustomResourceDefinition
	if err := json.Unmarshal([]byte(a.body), &made); err != nil {
		h.t.Fatal(err)
	}
	return h.await(made.Name, apiextensionsv1.Established, apiextensionsv1.ConditionTrue)
}

// await waits for a condition of a definition.
func (h *hub) await(name string, condition apiextensionsv1.CustomResourceDefinitionConditionType, status apiextensionsv1.ConditionStatus) (crd *apiextensionsv1.CustomResourceDefinition) {
	h.t.Helper()
	eventually(h.t.(*testing.T), fmt.Sprintf("%s is %s=%s", name, condition, status), func() bool {
		crd = &apiextensionsv1.CustomResourceDefinition{}
		if a := h.do("GET", definitions+"/"+name, ""); json.Unmarshal([]byte(a.body), crd) != nil {
			h.t.Fatal(a.body)
		}
		for _, c := range crd.Status.Conditions {
			if c.Type == condition {
				return c.Status == status
			}
		}
		return false
	})
	return crd
}

// ask is one request with what its answer must be and say. A failure's text is its Status' message.
type ask struct {
	name, method, path, body, header string
	code                             int
	says                             string
}

func (h *hub) asks(all ...ask) {
	h.t.Helper()
	for _, q := range all {
		var headers []string
		if q.header != "" {
			headers = append(headers, q.header)
		}
		a := h.do(q.method, q.path, q.body, headers...)
		text := a.body
		if a.code >= 400 {
			var s metav1.Status
			if err := json.Unmarshal([]byte(a.body), &s); err != nil {
				h.t.Errorf("%s: %q is no Status", q.name, a.body)
			}
			text = s.Message
		}
		if a.code != q.code || !strings.Contains(text, q.says) {
			h.t.Errorf("%s:\n got %d %s\nwant %d %s", q.name, a.code, text, q.code, q.says)
		}
	}
}

const things = "/apis/example.dev/v1/namespaces/default/things"

func thing(name, more string) string {
	return `{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"` + name + `"}` + more + `}`
}

// A definition becomes a kind, with its schema at work, and goes with all that it defined.
func TestDefinitionLife(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, nil)
	made := h.define(definition(thingVersion("v1", true, `{type: object, required: [size], properties: {size: {type: integer, minimum: 1}, color: {type: string, default: red}}}`)))
	if n := made.Status.AcceptedNames; n.Kind != "Thing" || n.ListKind != "ThingList" || len(n.ShortNames) != 1 || len(made.Status.StoredVersions) != 1 {
		t.Errorf("status: %+v", made.Status)
	}
	h.asks(
		ask{"create", "POST", things, thing("a", `,"spec":{"size":2,"shape":"round"},"more":1`), jsonBody, 201, `"spec":{"color":"red","size":2}`},
		ask{"get", "GET", things + "/a", "", "", 200, `"color":"red"`},
		ask{"list", "GET", things, "", "", 200, `"kind":"ThingList"`},
		ask{"strict", "POST", things + "?fieldValidation=Strict", thing("b", `,"spec":{"size":2,"shape":"round"}`), jsonBody, 400, `strict decoding error: unknown field "spec.shape"`},
		ask{"too small", "POST", things, thing("b", `,"spec":{"size":0}`), jsonBody, 422, `Thing.example.dev "b" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1`},
		ask{"missing", "POST", things, thing("b", `,"spec":{}`), jsonBody, 422, `spec.size: Required value`},
		ask{"type", "POST", things, thing("b", `,"spec":{"size":"x"}`), jsonBody, 422, `spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"`},
		ask{"patch", "PATCH", things + "/a", `{"spec":{"color":"blue"}}`, mergeBody, 200, `"generation":2`},
		ask{"bad patch", "PATCH", things + "/a", `{"spec":{"size":-1}}`, mergeBody, 422, "should be greater than or equal to 1"},
		ask{"discovery", "GET", "/apis/example.dev/v1", "", "", 200, `"shortNames":["th"]`},
		ask{"delete the definition", "DELETE", definitions + "/things.example.dev", "", "", 200, "InstanceDeletionPending"},
	)
	eventually(t, "the definition is gone", func() bool { return h.do("GET", definitions+"/things.example.dev", "").code == 404 })
	eventually(t, "its kind is gone", func() bool { return h.do("GET", things, "").code == 404 })
	h.define(definition(thingVersion("v1", true, "{type: object, properties: {size: {type: integer}}}")))
	h.asks(
		ask{"objects went with it", "GET", things, "", "", 200, `"items":[]`},
		ask{"the schema is the new one", "POST", things, thing("a", `,"spec":{"size":0,"color":"red"}`), jsonBody, 201, `"spec":{"size":0}`},
	)
}
