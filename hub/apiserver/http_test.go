package apiserver_test

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth/satoken"
)

const configMaps = "/api/v1/namespaces/default/configmaps"

func configMap(name, more string) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"}` + more + `}`
}

// The texts of errors are part of the API: people search for them, and tests of clients compare them.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	const js, yaml = "Content-Type: application/json", "Content-Type: application/yaml"
	for _, tt := range []struct {
		name, method, path, body, header string
		code                             int
		reason                           metav1.StatusReason
		says                             string
	}{
		{"unknown path", "GET", "/nowhere", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"unknown group", "GET", "/apis/nope/v1/things", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"unknown resource", "GET", "/api/v1/gadgets", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"no namespace", "GET", "/api/v1/namespaces//configmaps", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"unknown subresource", "GET", configMaps + "/a/status", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"no such object", "GET", configMaps + "/none", "", "", 404, "NotFound", `configmaps "none" not found`},
		{"create without namespace", "POST", "/api/v1/configmaps", configMap("a", ""), js, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"post to a name", "POST", configMaps + "/a", configMap("a", ""), js, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"unknown method", "BREW", configMaps, "", "", 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"broken JSON", "POST", configMaps, `{"a":`, js, 400, "BadRequest", "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"a\":)"},
		{"empty body", "POST", configMaps, "", js, 400, "BadRequest", "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"},
		{"wrong kind", "POST", configMaps, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}`, js, 400, "BadRequest", `Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion`},
		{"unknown kind", "POST", configMaps, `{"apiVersion":"v1","kind":"Foo","metadata":{"name":"a"}}`, js, 400, "BadRequest", `Foo in version "v1" cannot be handled as a ConfigMap: no kind "Foo" is registered for version "v1" in scheme`},
		{"wrong version", "POST", "/apis/apps/v1/namespaces/default/deployments", `{"apiVersion":"apps/v1beta1","kind":"Deployment"}`, js, 400, "BadRequest", "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)"},
		{"wrong type", "POST", configMaps, configMap("a", `,"data":{"a":1}`), js, 400, "BadRequest", `ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
		{"value that has no internal form", "POST", "/apis/apps/v1/namespaces/default/deployments", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","annotations":{"deprecated.deployment.rollback.to":"x"}},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, js, 400, "BadRequest", `Deployment in version "v1" cannot be handled as a Deployment: failed to parse annotation[deprecated.deployment.rollback.to]=x as int64: strconv.ParseInt: parsing "x": invalid syntax`},
		{"unknown field, strict", "POST", configMaps + "?fieldValidation=Strict", configMap("a", `,"dta":{}`), js, 400, "BadRequest", `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta"`},
		{"duplicate field, strict", "POST", configMaps + "?fieldValidation=Strict", configMap("a", `,"data":{"a":"1"},"data":{"b":"2"}`), js, 400, "BadRequest", `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data"`},
		{"duplicate key in YAML, strict", "POST", configMaps + "?fieldValidation=Strict", "kind: ConfigMap\napiVersion: v1\ndata:\n  a: one\n  a: two\n", yaml, 400, "BadRequest", `strict decoding error: yaml: unmarshal errors:` + "\n" + `  line 5: key "a" already set in map`},
		{"bad fieldValidation", "POST", configMaps + "?fieldValidation=Maybe", configMap("a", ""), js, 422, "Invalid", `CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Maybe": supported values: "", "Ignore", "Strict", "Warn"`},
		{"bad dryRun", "POST", configMaps + "?dryRun=Some", configMap("a", ""), js, 422, "Invalid", `CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"`},
		{"other namespace", "POST", configMaps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b"}}`, js, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		{"no name", "PUT", configMaps + "/b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}`, js, 400, "BadRequest", "the name of the object (b based on URL) was undeterminable: name must be provided"},
		{"other name", "PUT", configMaps + "/b", configMap("a", ""), js, 400, "BadRequest", "the name of the object (a) does not match the name on the URL (b)"},
		{"unknown media type", "POST", configMaps, "hello", "Content-Type: text/plain", 415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"unknown patch type", "PATCH", configMaps + "/a", "{}", js, 415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"},
		{"apply of nothing", "PATCH", configMaps + "/a?fieldManager=t", "{}", "Content-Type: application/apply-patch+yaml", 400, "BadRequest", "invalid object type: /, Kind="},
		{"apply of nobody", "PATCH", configMaps + "/a", "{}", "Content-Type: application/apply-patch+yaml", 422, "Invalid", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"},
		{"table of an answer", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}`, "Accept: application/json;as=Table;v=v1;g=meta.k8s.io", 406, "NotAcceptable", "only the following media types are accepted when converting to Table.v1.meta.k8s.io"},
		{"unacceptable", "GET", configMaps, "", "Accept: text/html", 406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"bad limit", "GET", configMaps + "?limit=x", "", "", 400, "BadRequest", `strconv.ParseInt: parsing "x": invalid syntax`},
		{"bad label selector", "GET", configMaps + "?labelSelector=!!", "", "", 400, "BadRequest", "unable to parse requirement"},
		{"bad field selector", "GET", configMaps + "?fieldSelector=a", "", "", 400, "BadRequest", "invalid selector: 'a'; can't understand 'a'"},
		{"match without version", "GET", configMaps + "?resourceVersionMatch=Exact", "", "", 422, "Invalid", `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
		{"bad includeObject", "GET", configMaps + "?includeObject=Half", "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1", 400, "BadRequest", `unrecognized includeObject value: "Half"`},
		{"bad delete options", "DELETE", configMaps + "/a", `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Never"}`, js, 422, "Invalid", `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Never"`},
		{"too large", "POST", configMaps, configMap("a", `,"data":{"a":"`+strings.Repeat("x", 3<<20)+`"}`), js, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			a := h.do(tt.method, tt.path, tt.body, headers...)
			var s metav1.Status
			if err := json.Unmarshal([]byte(a.body), &s); err != nil {
				t.Fatalf("%d %s: %v", a.code, a.body, err)
			}
			if a.code != tt.code || int(s.Code) != tt.code || s.Kind != "Status" || s.APIVersion != "v1" || s.Status != "Failure" || s.Reason != tt.reason || !strings.Contains(s.Message, tt.says) {
				t.Errorf("%d %s\nwant %d %s %s", a.code, a.body, tt.code, tt.reason, tt.says)
			}
		})
	}
}

// A deletion that has only begun is 200 as upstream's is, but for those who ask in the old way.
func TestDeletionCodes(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	const js = "Content-Type: application/json"
	h.do("POST", configMaps, `{"metadata":{"name":"a","finalizers":["example.com/f"]}}`, js)
	for _, tt := range []struct {
		body string
		code int
	}{{"", 200}, {`{"propagationPolicy":"Foreground"}`, 200}, {`{"orphanDependents":true}`, 200}, {`{"orphanDependents":false}`, 202}} {
		if a := h.do("DELETE", configMaps+"/a", tt.body, js); a.code != tt.code || !strings.Contains(a.body, `"kind":"ConfigMap"`) {
			t.Errorf("%s: %d %s, want %d", tt.body, a.code, a.body, tt.code)
		}
	}
	h.do("PATCH", configMaps+"/a", `{"metadata":{"finalizers":null}}`, "Content-Type: application/merge-patch+json")
	if a := h.do("GET", configMaps+"/a", ""); a.code != 404 {
		t.Errorf("%+v", a)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: clientTLS(h.t, h.pki).RootCAs}}}
	for path, code := range map[string]int{
		"/api": 401, "/apis": 401, "/api/v1/secrets": 401, "/openapi/v2": 401, "/metrics": 401, "/nowhere": 401, "/": 401,
		"/version": 200, "/healthz": 200, "/livez": 200, "/readyz": 200,
	} {
		if a := send(t, c, "GET", h.url+path, ""); a.code != code {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	a := send(t, c, "GET", h.url+"/api/v1/secrets", "", "Authorization: Bearer letmein")
	var s metav1.Status
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		t.Fatal(err)
	}
	if a.code != 401 || s.Message != "Unauthorized" || s.Reason != metav1.StatusReasonUnauthorized {
		t.Errorf("%+v", a)
	}
}

// A ServiceAccount's token is good for discovery as long as the account lives, and for nothing else.
func TestServiceAccountClient(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	bootstrap(t, h.reg.Client())
	sas := h.client().CoreV1().ServiceAccounts("default")
	sa, err := sas.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := h.pki.Tokens().IssueToken(t.Context(), sa, satoken.Bound{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rest.HTTPClientFor(&rest.Config{Host: h.url, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: h.pki.CA()}})
	if err != nil {
		t.Fatal(err)
	}
	if a := send(t, c, "GET", h.url+"/api/v1", ""); a.code != 200 {
		t.Errorf("%+v", a)
	}
	a := send(t, c, "GET", h.url+"/api/v1/namespaces/y/secrets", "")
	if want := `secrets is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"secrets\" in API group \"\" in the namespace \"y\"`; a.code != 403 || !strings.Contains(a.body, want) {
		t.Errorf("%+v, want %s", a, want)
	}
	for path, test := range map[string]struct{ body, want string }{
		"authentication.k8s.io/v1/selfsubjectreviews": {`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`,
			`"username":"system:serviceaccount:default:robot","uid":"` + string(sa.UID) + `"`},
		"authorization.k8s.io/v1/selfsubjectaccessreviews": {`{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"resourceAttributes":{"verb":"list","resource":"pods"}}}`,
			`"allowed":false`},
		"authorization.k8s.io/v1/selfsubjectrulesreviews": {`{"kind":"SelfSubjectRulesReview","apiVersion":"authorization.k8s.io/v1","spec":{"namespace":"default"}}`,
			`"resources":["selfsubjectaccessreviews","selfsubjectrulesreviews"]`},
	} {
		if a := send(t, c, "POST", h.url+"/apis/"+path, test.body, "Content-Type: application/json"); a.code != 201 || !strings.Contains(a.body, test.want) {
			t.Errorf("%s: %+v, want %s", path, a, test.want)
		}
	}
	if a := send(t, c, "POST", h.url+"/apis/authentication.k8s.io/v1/tokenreviews", "{}"); a.code != 403 {
		t.Errorf("%+v: a pod may not ask whose a token is", a)
	}
	for _, form := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		admin := rest.CopyConfig(h.config)
		admin.ContentType, admin.AcceptContentTypes = form, form
		reviewed, err := kubernetes.NewForConfigOrDie(admin).AuthenticationV1().TokenReviews().Create(t.Context(),
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		if err != nil || !reviewed.Status.Authenticated || reviewed.Status.User.Username != "system:serviceaccount:default:robot" ||
			!slices.Equal(reviewed.Status.Audiences, []string{satoken.Issuer}) || len(reviewed.Status.User.Extra) == 0 {
			t.Errorf("the token is reviewed as %+v, %v", reviewed, err)
		}
	}
	if err := sas.Delete(t.Context(), "robot", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The hub's own view follows a commit within moments; there is nothing to wait on but the answer itself.
	for begin := time.Now(); send(t, c, "GET", h.url+"/api/v1", "").code != 401; {
		if time.Since(begin) > time.Minute {
			t.Fatal("the token outlives its account")
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	if a := h.do("POST", configMaps, "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a, labels: {l: m}}\ndata: {k: v}\n", "Content-Type: application/yaml"); a.code != 201 {
		t.Fatalf("%+v", a)
	}
	const table, partial = "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	for _, tt := range []struct {
		path, accept, contentType string
		has, hasNot               []string
	}{
		{"/a", "", "application/json", []string{`"kind":"ConfigMap"`, `"k":"v"`}, []string{"\n  "}},
		{"/a", "*/*", "application/json", []string{`"kind":"ConfigMap"`}, nil},
		{"/a?pretty=true", "", "application/json", []string{"\n  \"kind\": \"ConfigMap\""}, nil},
		{"/a", "application/yaml", "application/yaml", []string{"kind: ConfigMap\n"}, nil},
		{"/a", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", []string{"k8s\x00"}, nil},
		{"/a", "application/vnd.kubernetes.protobuf,application/json", "application/json", []string{`"k":"v"`}, nil},
		{"/a", strings.Replace(partial, "json", "vnd.kubernetes.protobuf", 1), "application/vnd.kubernetes.protobuf", []string{"k8s\x00", "PartialObjectMetadata", "meta.k8s.io/v1"}, []string{"ConfigMap"}},
		{"", strings.Replace(partial, "json", "vnd.kubernetes.protobuf", 1), "application/vnd.kubernetes.protobuf", []string{"k8s\x00", "PartialObjectMetadataList"}, []string{"ConfigMap"}},
		{"/a", partial, "application/json", []string{`"kind":"PartialObjectMetadata"`, `"l":"m"`}, []string{`"data"`}},
		{"/a", table, "application/json", []string{`"kind":"Table"`, `"columnDefinitions"`, `"kind":"PartialObjectMetadata"`, `"cells":["a",1,`}, []string{`"data"`}},
		{"/a?includeObject=Object", table, "application/json", []string{`"kind":"Table"`, `"kind":"ConfigMap"`}, nil},
		{"/a?includeObject=None", table, "application/json", []string{`"kind":"Table"`, `"object":null`}, []string{`"l":"m"`}},
		{"/a", table + ",application/json", "application/json", []string{`"kind":"Table"`}, nil},
		{"/a", "application/json;as=Table;v=v1beta1;g=meta.k8s.io", "application/json", []string{`"kind":"Table","apiVersion":"meta.k8s.io/v1beta1"`, `"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1"`}, nil},
		{"", "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io", "application/json", []string{`{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1beta1"`}, nil},
		{"", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf", []string{"meta.k8s.io/v1beta1"}, nil},
		{"/a", "application/json;as=Table;v=v9;g=meta.k8s.io,application/json", "application/json", []string{`"kind":"ConfigMap"`}, nil},
		{"", "", "application/json", []string{`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"`, `"items":[{`}, nil},
		{"", "application/yaml", "application/yaml", []string{"kind: ConfigMapList\n"}, nil},
		{"", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", []string{"ConfigMapList"}, nil},
		{"", table, "application/json", []string{`"kind":"Table"`, `"resourceVersion":"`}, nil},
		{"", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json", []string{`"kind":"PartialObjectMetadataList"`, `"kind":"PartialObjectMetadata"`}, []string{`"data"`}},
		{"?labelSelector=l%3Dother", "", "application/json", []string{`"items":[]`}, nil},
	} {
		t.Run(tt.path+" "+tt.accept, func(t *testing.T) {
			a := h.do("GET", configMaps+tt.path, "", "Accept: "+tt.accept)
			if a.code != 200 || a.header.Get("Content-Type") != tt.contentType {
				t.Fatalf("%d %s %q", a.code, a.header.Get("Content-Type"), a.body)
			}
			for _, s := range tt.has {
				if !strings.Contains(a.body, s) {
					t.Errorf("no %q in %q", s, a.body)
				}
			}
			for _, s := range tt.hasNot {
				if strings.Contains(a.body, s) {
					t.Errorf("%q in %q", s, a.body)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for query, want := range map[string]string{
		"":                        `299 - "unknown field \"dta\""`,
		"?fieldValidation=Warn":   `299 - "unknown field \"dta\""`,
		"?fieldValidation=Ignore": "",
	} {
		a := h.do("POST", configMaps+query, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"w-"},"dta":{}}`, "Content-Type: application/json")
		if a.code != 201 || a.header.Get("Warning") != want {
			t.Errorf("%q: %d, Warning: %s", query, a.code, a.header.Get("Warning"))
		}
	}
}

func TestWatchFrames(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, tt := range []struct {
		accept string
		want   []string // one for each frame
	}{
		{"application/json", []string{`{"type":"ADDED","object":{`, `{"type":"MODIFIED","object":{`, `{"type":"DELETED","object":{`}},
		{"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", []string{`{"type":"ADDED","object":{"kind":"PartialObjectMetadata"`, `{"type":"MODIFIED"`, `{"type":"DELETED"`}},
		{"application/json;as=Table;v=v1;g=meta.k8s.io", []string{`{"type":"ADDED","object":{"kind":"Table"`, `"columnDefinitions":null`, `{"type":"DELETED"`}},
	} {
		t.Run(tt.accept, func(t *testing.T) {
			c, err := rest.HTTPClientFor(h.config)
			if err != nil {
				t.Fatal(err)
			}
			list := h.do("GET", configMaps, "")
			var l metav1.PartialObjectMetadataList
			if err := json.Unmarshal([]byte(list.body), &l); err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequest("GET", h.url+configMaps+"?watch=1&resourceVersion="+l.ResourceVersion, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", tt.accept)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			h.do("POST", configMaps, configMap("w", ""), "Content-Type: application/json")
			h.do("PATCH", configMaps+"/w", `{"data":{"a":"b"}}`, "Content-Type: application/merge-patch+json")
			h.do("DELETE", configMaps+"/w", "")
			lines := bufio.NewReader(resp.Body)
			for i, want := range tt.want {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(line, want) {
					t.Errorf("frame %d is %s, want %s", i, line, want)
				}
			}
		})
	}
	a := h.do("GET", configMaps+"?watch=true&timeoutSeconds=1", "")
	if a.code != 200 {
		t.Errorf("a watch that times out: %+v", a)
	}
	a = h.do("GET", configMaps+"?watch=true&resourceVersion=999999999&timeoutSeconds=2", "")
	if !strings.Contains(a.body, "Too large resource version") && a.code == 200 && !strings.Contains(a.body, `"code":`) {
		t.Errorf("a watch from the future: %+v", a)
	}
}

// Large answers are compressed for clients elsewhere, not for those on this machine.
func TestGzip(t *testing.T) {
	t.Parallel()
	var handler http.Handler
	h := newHub(t, func(c *apiserver.Config) {
		var err error
		if handler, err = apiserver.New(*c); err != nil {
			t.Fatal(err)
		}
	})
	for i := range 3 {
		h.do("POST", configMaps, configMap(fmt.Sprint("big", i), `,"data":{"a":"`+strings.Repeat("x", 100<<10)+`"}`), "Content-Type: application/json")
	}
	plain := h.do("GET", configMaps, "").body
	admin, err := x509.ParseCertificate(clientTLS(h.t, h.pki).Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for from, zipped := range map[string]bool{"192.0.2.1:40000": true, "127.0.0.1:40000": false, "[::1]:40000": false} {
		r := httptest.NewRequest("GET", configMaps, nil)
		r.RemoteAddr, r.TLS = from, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{admin}}
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		var body io.Reader = w.Body
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != zipped {
			t.Errorf("from %s: %d %v", from, w.Code, w.Header())
			continue
		}
		if zipped {
			if body, err = gzip.NewReader(w.Body); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := io.ReadAll(body); err != nil || string(b) != plain {
			t.Errorf("from %s: %d bytes of %d, %v", from, len(b), len(plain), err)
		}
	}
}

func TestPanicBecomes500(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) {
		c.Log = nil
		c.Ready = []apiserver.Check{{Name: "store", Health: func() error { panic("out of cheese") }}}
	})
	a := h.do("GET", "/readyz", "")
	if a.code != 500 || !strings.Contains(a.body, `"reason":"InternalError"`) {
		t.Errorf("%+v", a)
	}
	if a := h.do("GET", "/healthz", ""); a.code != 200 {
		t.Errorf("afterwards: %+v", a)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var busy, away atomic.Bool
	failing := func(when *atomic.Bool, text string) func() error {
		return func() error {
			if when.Load() {
				return errors.New(text)
			}
			return nil
		}
	}
	h := newHub(t, func(c *apiserver.Config) {
		c.Ready = []apiserver.Check{
			{Name: "store", Health: failing(&busy, "the store is still being checked")},
			{Name: "broker", Health: failing(&away, "the broker is away"), Advisory: true},
		}
	})
	expect := func(path string, code int, body string) {
		t.Helper()
		if a := h.do("GET", path, ""); a.code != code || !strings.Contains(a.body, body) {
			t.Errorf("%s: %+v, want %d with %q", path, a, code, body)
		}
	}
	const all = "[+]ping ok\n[+]store ok\n[+]broker ok\n[+]shutdown ok\nreadyz check passed\n"
	expect("/readyz", 200, "ok")
	expect("/readyz?verbose", 200, all)
	expect("/readyz/store", 200, "ok")
	expect("/readyz/other", 404, "")

	// What the API does without is listed, and does not make the hub unready.
	away.Store(true)
	expect("/readyz", 200, "ok")
	expect("/readyz?verbose", 200, "[-]broker failed: the broker is away\n[+]shutdown ok\nreadyz check passed\n")
	expect("/readyz/broker", 503, "[-]broker failed: the broker is away\nreadyz check failed\n")
	expect("/readyz/store", 200, "ok")

	busy.Store(true)
	expect("/readyz", 503, "[-]store failed: the store is still being checked")
	expect("/readyz?exclude=store", 200, "ok")
	expect("/readyz/store", 503, "[-]store failed: the store is still being checked")
	expect("/readyz/ping", 200, "ok")
	expect("/livez", 200, "ok")
	if a := h.do("GET", "/metrics", ""); a.code != 200 || !strings.Contains(a.body, `apiserver_request_total{code="503"`) {
		t.Errorf("%d %.300s", a.code, a.body)
	}
}

// A watch may be asked for longer than a Duration can say; that must not end it at once.
func TestWatchOfALongTime(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	c, err := rest.HTTPClientFor(h.config)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Get(h.url + configMaps + "?watch=true&timeoutSeconds=10000000000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if a := h.do("POST", configMaps, configMap("a", ""), "Content-Type: application/json"); a.code != 201 {
		t.Fatalf("%+v", a)
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"ADDED"`) {
		t.Errorf("%q, %v", line, err)
	}
}
