package apiserver_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"petrel.dev/petrel/hub/webhook"
)

// converter is a conversion webhook: v1 has spec.host "a:1", v2 has spec.name "a" and spec.port "1".
type converter struct {
	server *httptest.Server
	calls  atomic.Int32
	mode   atomic.Value // string; "": it does what it should
}

func newConverter(t *testing.T) *converter {
	c := &converter{}
	c.mode.Store("")
	c.server = httptest.NewTLSServer(c)
	t.Cleanup(c.server.Close)
	return c
}

func (c *converter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.calls.Add(1)
	var review apiextensionsv1.ConversionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	res := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, raw := range review.Request.Objects {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw.Raw); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		spec, _ := u.Object["spec"].(map[string]any)
		if strings.HasSuffix(review.Request.DesiredAPIVersion, "/v2") {
			name, port, _ := strings.Cut(fmt.Sprint(spec["host"]), ":")
			u.Object["spec"] = map[string]any{"name": name, "port": port}
		} else {
			u.Object["spec"] = map[string]any{"host": fmt.Sprintf("%v:%v", spec["name"], spec["port"])}
		}
		u.SetAPIVersion(review.Request.DesiredAPIVersion)
		res.ConvertedObjects = append(res.ConvertedObjects, runtime.RawExtension{Object: u})
	}
	switch c.mode.Load() {
	case "refuses":
		res.Result = metav1.Status{Status: metav1.StatusFailure, Message: "no such luck"}
	case "loses one":
		res.ConvertedObjects = res.ConvertedObjects[:0]
	case "renames":
		res.ConvertedObjects[0].Object.(*unstructured.Unstructured).SetName("other")
	case "other uid":
		res.UID = "x"
	case "nonsense":
		_, _ = w.Write([]byte("<html>"))
		return
	case "broken":
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	review.Request, review.Response = nil, res
	_ = json.NewEncoder(w).Encode(review)
}

// definition returns that of two versions between which c converts.
func (c *converter) definition(v1Stored bool) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	return definition(
		thingVersion("v1", v1Stored, `{type: object, properties: {host: {type: string}}}`)+"    deprecated: true\n",
		thingVersion("v2", !v1Stored, `{type: object, properties: {name: {type: string, maxLength: 5}, port: {type: string}, zone: {type: string, default: here}}}`)+"    selectableFields: [{jsonPath: .spec.name}]\n",
	) + fmt.Sprintf("  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}\n",
		c.server.URL+"/convert", base64.StdEncoding.EncodeToString(ca))
}

const things2 = "/apis/example.dev/v2/namespaces/default/things"

// Each version decides its own requests; objects are converted on their way to and from the store, whichever version is stored.
func TestConversionWebhook(t *testing.T) {
	t.Parallel()
	c := newConverter(t)
	h := definitionHub(t, webhook.New(nil))
	h.define(c.definition(true))
	v2 := func(name, spec string) string {
		return `{"apiVersion":"example.dev/v2","kind":"Thing","metadata":{"name":"` + name + `","labels":{"n":"` + name + `"}},"spec":{` + spec + `}}`
	}
	dyn, err := dynamic.NewForConfig(h.config)
	if err != nil {
		t.Fatal(err)
	}
	w, err := dyn.Resource(schema.GroupVersionResource{Group: "example.dev", Version: "v2", Resource: "things"}).Namespace("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	h.asks(
		ask{"made in v2", "POST", things2, v2("a", `"name":"x","port":"80","host":"lost"`), jsonBody, 201, `"spec":{"name":"x","port":"80"}`},
		ask{"read in v1", "GET", things + "/a", "", "", 200, `"spec":{"host":"x:80"}`},
		ask{"read in v2", "GET", things2 + "/a", "", "", 200, `"apiVersion":"example.dev/v2"`},
		ask{"v2 decides", "POST", things2, v2("b", `"name":"much too long"`), jsonBody, 422, "spec.name: Too long"},
		ask{"v1 does not", "POST", things, thing("b", `,"spec":{"host":"longer:1"}`), jsonBody, 201, ""},
		ask{"patched in v2", "PATCH", things2 + "/a", `{"spec":{"port":"81"}}`, mergeBody, 200, `"port":"81"`},
		ask{"is another in v1", "GET", things + "/a", "", "", 200, `"host":"x:81"`},
		ask{"listed in v2", "GET", things2, "", "", 200, `"spec":{"name":"longer","port":"1"}`},
		ask{"selected in v2", "GET", things2 + "?fieldSelector=spec.name%3Dlonger", "", "", 200, `"name":"b"`},
		ask{"selectable in v2 only", "GET", things + "?fieldSelector=spec.name%3Dlonger", "", "", 400, "field label not supported"},
	)
	e, _ := nextEvent(t, w)
	if u, ok := e.Object.(*unstructured.Unstructured); !ok || u.GetAPIVersion() != "example.dev/v2" || u.Object["spec"].(map[string]any)["name"] != "x" {
		t.Errorf("watched %v", e.Object)
	}
	if a := h.do("GET", things, ""); !strings.Contains(strings.Join(a.header.Values("Warning"), ""), "example.dev/v1 Thing is deprecated; use example.dev/v2 Thing") {
		t.Errorf("warnings: %q", a.header.Values("Warning"))
	}
	before := c.calls.Load()
	h.asks(ask{"a list", "GET", things2, "", "", 200, ""})
	if n := c.calls.Load() - before; n != 1 {
		t.Errorf("a list took %d calls", n)
	}

	h.redefine(c.definition(false)) // now v2 is stored
	eventually(t, "both versions were stored", func() bool {
		return strings.Contains(h.do("GET", definitions+"/things.example.dev", "").body, `"storedVersions":["v1","v2"]`)
	})
	h.asks(ask{"stored in v1", "GET", things2 + "/a", "", "", 200, `"port":"81"`})
	n := 100
	eventually(t, "v2 is what writes are stored in", func() bool { // the definition is in force a moment after it is written
		n++
		h.do("PATCH", things+"/a", fmt.Sprintf(`{"spec":{"host":"x:%d"}}`, n), "Content-Type: application/merge-patch+json")
		return strings.Contains(h.do("GET", things2+"/a", "").body, `"zone":"here"`)
	})
	h.asks(
		ask{"written in v1", "PATCH", things + "/a", `{"spec":{"host":"y:82"}}`, mergeBody, 200, `"host":"y:82"`},
		ask{"defaults come with what is stored", "GET", things2 + "/a", "", "", 200, `"spec":{"name":"y","port":"82","zone":"here"}`},
		ask{"v1 may not leave", "PUT", definitions + "/things.example.dev/status", "", jsonBody, 400, ""},
	)
}

// A webhook that fails is named in the error, with what it did.
func TestConversionWebhookFails(t *testing.T) {
	t.Parallel()
	c := newConverter(t)
	h := definitionHub(t, webhook.New(nil))
	h.define(c.definition(true))
	h.asks(ask{"made", "POST", things, thing("a", `,"spec":{"host":"x:80"}`), jsonBody, 201, ""})
	const failed = "conversion webhook for example.dev/v1, Kind=Thing "
	for mode, says := range map[string]string{
		"refuses":   failed + "failed: no such luck",
		"loses one": failed + "returned 0 objects, expected 1",
		"renames":   failed + "returned invalid converted object at index 0: must have the same name: a != other",
		"other uid": failed + "failed: expected response.uid=",
		"nonsense":  failed + "failed: decode response: invalid character",
		"broken":    failed + `failed: an error on the server ("out of order") has prevented the request from succeeding`,
	} {
		c.mode.Store(mode)
		h.asks(
			ask{mode, "GET", things2 + "/a", "", "", 500, says},
			ask{mode + ", list", "GET", things2, "", "", 500, says},
			ask{mode + ", in the stored version", "GET", things + "/a", "", "", 200, ""},
		)
	}
}
