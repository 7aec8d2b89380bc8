package apiserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
)

// noCreation lets everyone do all but create ConfigMaps and Leases.
type noCreation struct{}

func (noCreation) Authorize(_ context.Context, _ auth.User, a auth.Attributes) (allowed bool, reason string, err error) {
	return a.Verb != "create" || a.Plural != "configmaps" && a.Plural != "leases", "", nil
}

// Who may patch or update an object may not, by that, create it.
func TestApplyDoesNotGrantCreation(t *testing.T) {
	h := newHub(t, func(c *apiserver.Config) { c.Authorizer = noCreation{} })
	for _, test := range []struct{ method, path, body, contentType, want string }{
		{"PATCH", configMaps + "/a?fieldManager=t", configMap("a", ""), "application/apply-patch+yaml",
			`configmaps \"a\" is forbidden: User \"petrel-admin\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\"`},
		{"PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/a", `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"}}`, "application/json",
			`cannot create resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"default\"`},
	} {
		res := h.do(test.method, test.path, test.body, "Content-Type: "+test.contentType)
		if res.code != http.StatusForbidden || !strings.Contains(string(res.body), test.want) {
			t.Errorf("%s %s: %d %s", test.method, test.path, res.code, res.body)
		}
	}
}

// The body of an apply may be YAML, JSON or CBOR.
func TestApplyBodies(t *testing.T) {
	h := newHub(t)
	cbor, err := direct.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"c": "cbor"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ form, body, want string }{
		{"yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: plain}\n", `"a":"plain"`},
		{"yaml", configMap("a", `,"data":{"b":"json"}`), `"b":"json"`},
		{"cbor", string(cbor), `"c":"cbor"`},
	} {
		res := h.do("PATCH", configMaps+"/a?fieldManager=t", test.body, "Content-Type: application/apply-patch+"+test.form)
		if res.code > 201 || !strings.Contains(string(res.body), `"data":{`+test.want+`}`) {
			t.Errorf("%s: %d %s", test.body, res.code, res.body)
		}
	}
	large := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n" + strings.Repeat("# x\n", 200_000)
	if res := h.do("PATCH", configMaps+"/a?fieldManager=t", large, "Content-Type: application/apply-patch+yaml"); res.code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body in YAML: %d %s", res.code, res.body)
	}
}
