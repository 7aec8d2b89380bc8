package apiserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/aggregate"
	"petrel.dev/petrel/hub/aggregate/swagger"
	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/controltest"
)

// behind reaches one server under every Service's name.
type behind string

func (b behind) DialService(context.Context, string, string, int32) (net.Conn, error) {
	return net.Dial("tcp", string(b))
}

// about remembers what was asked about a group.
type about struct {
	auth.Authorizer
	mu   sync.Mutex
	what string // the last
}

func (a *about) Authorize(ctx context.Context, u auth.User, at auth.Attributes) (bool, string, error) {
	if strings.Contains(at.Path, "wardle") {
		a.mu.Lock()
		a.what = fmt.Sprintf("%s %s %s %s/%s %s", at.Verb, at.APIGroup, at.Plural, at.Namespace, at.Name, at.Subresource)
		a.mu.Unlock()
	}
	return a.Authorizer.Authorize(ctx, u, at)
}

// wardle returns the hub's side of a server behind it, and the available APIService that leads there.
func wardle(t *testing.T, srv *httptest.Server) (*aggregate.Aggregator, *apiregistrationv1.APIService) {
	t.Helper()
	svc := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.wardle.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
		Group: "wardle.example.com", Version: "v1", InsecureSkipTLSVerify: true, Service: &apiregistrationv1.ServiceReference{Namespace: "w", Name: "api"}},
		Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue}}}}
	svc.SetGroupVersionKind(aggregate.APIService)
	pki, err := auth.LoadPKI(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := pki.FrontProxy()
	if err != nil {
		t.Fatal(err)
	}
	return aggregate.New(aggregate.Config{Objects: controltest.New(t, svc), Dialer: behind(srv.Listener.Addr().String()), Identity: identity, Log: slog.New(slog.DiscardHandler)}), svc
}

// TestServerBehind reads and writes through an APIService as a client does: discovery shows what the other server lists, each request
// asks for the same right as one for a kind of this server, and the other server learns who asks.
func TestServerBehind(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/apis/wardle.example.com/v1" {
			_, _ = io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"wardle.example.com/v1","resources":[{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get","list"]}]}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s by %s: %s", r.Method, r.RequestURI, r.Header.Get("X-Remote-User"), body)
	}))
	defer srv.Close()
	a, svc := wardle(t, srv)
	policy := &about{Authorizer: auth.Union{auth.Masters{}}}
	h := newHub(t, func(c *apiserver.Config) { c.Aggregated, c.Authorizer = a, policy })
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(t, h.pki)}}
	defer client.CloseIdleConnections()
	ask := func(method, path, accept, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if _, body := ask("GET", "/apis", "application/json", ""); strings.Contains(body, "wardle") {
		t.Errorf("discovery shows what nobody has looked at: %s", body)
	}
	if err := a.Look(t.Context(), svc); err != nil {
		t.Fatal(err)
	}
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	const group, pods = "/apis/wardle.example.com/v1", "/namespaces/x/flunders"
	for _, c := range []struct {
		method, path, accept, body string
		code                       int
		want, right                string
	}{
		{"GET", "/apis", "application/json", "", 200, `{"name":"wardle.example.com","versions":[{"groupVersion":"wardle.example.com/v1","version":"v1"}]`, ""},
		{"GET", "/apis", aggregated, "", 200, `"resource":"flunders","responseKind":{"group":"wardle.example.com","version":"v1","kind":"Flunder"},"scope":"Namespaced"`, ""},
		{"GET", "/apis/wardle.example.com", "", "", 200, `"kind":"APIGroup"`, ""},
		{"GET", group, "", "", 200, `"name":"flunders"`, "get   / "},
		{"GET", group + "/flunders?limit=1", "", "", 200, "GET " + group + "/flunders?limit=1 by petrel-admin", "list wardle.example.com flunders / "},
		{"GET", group + pods + "/a", "", "", 200, "GET " + group + pods + "/a by petrel-admin", "get wardle.example.com flunders x/a "},
		{"POST", group + pods, "", "hello", 200, "POST " + group + pods + " by petrel-admin: hello", "create wardle.example.com flunders x/ "},
		{"PUT", group + pods + "/a/status", "", "", 200, "PUT ", "update wardle.example.com flunders x/a status"},
		{"DELETE", group + pods, "", "", 200, "DELETE ", "deletecollection wardle.example.com flunders x/ "},
		{"GET", group + pods + "?watch=true", "", "", 200, "GET ", "watch wardle.example.com flunders x/ "},
		{"GET", group + pods + "?watch=true&fieldSelector=metadata.name%3Da", "", "", 200, "GET ", "watch wardle.example.com flunders x/a "},
		{"POST", group + pods, "", strings.Repeat("x", 4<<20), 413, "limit is", "create wardle.example.com flunders x/ "},
		{"GET", "/openapi/v3", "application/json", "", 200, `"apis/wardle.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1"}`, ""},
		{"GET", "/openapi/v3" + group, "", "", 200, "GET /openapi/v3" + group + " by petrel-admin", "get   / "},
		{"GET", "/apis/wardle.example.com/v2/flunders", "", "", 404, "could not find the requested resource", "list wardle.example.com flunders / "},
	} {
		policy.what = ""
		code, body := ask(c.method, c.path, c.accept, c.body)
		if code != c.code || !strings.Contains(body, c.want) || c.right != "" && policy.what != c.right {
			t.Errorf("%s %s: %d %.600s, asked for %q; want %d %s, %q", c.method, c.path, code, body, policy.what, c.code, c.want, c.right)
		}
	}
}

// TestStreamsOfAServerBehind checks that an upgraded connection to another server holds no place of short requests, however long it
// lasts.
func TestStreamsOfAServerBehind(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, conn)
	}))
	srv.EnableHTTP2 = true // as every server of Kubernetes' library; an upgrade needs HTTP/1.1
	srv.StartTLS()
	defer srv.Close()
	a, _ := wardle(t, srv)
	h := newHub(t, func(c *apiserver.Config) { c.Aggregated, c.Limits.InFlight = a, 1 })
	conn, err := tls.Dial("tcp", strings.TrimPrefix(h.url, "https://"), clientTLS(t, h.pki))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /apis/wardle.example.com/v1/flunders/a/exec HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
	if a := h.do("GET", "/api/v1/namespaces", ""); a.code != 200 {
		t.Errorf("beside the stream: %d %s", a.code, a.body)
	}
}

// TestExplainAggregated reads the schemas of another server's kind as clients of OpenAPI 2 do, beside those of this server's own.
func TestExplainAggregated(t *testing.T) {
	t.Parallel()
	const document = `{"swagger":"2.0","info":{"title":"x","version":"y"},"paths":{"/apis/wardle.example.com/v1/namespaces/{namespace}/flunders":{"get":{
		"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.wardle.Flunder"}}},"x-kubernetes-action":"list","x-kubernetes-group-version-kind":{"group":"wardle.example.com","kind":"Flunder","version":"v1"}}}},
		"definitions":{"com.example.wardle.Flunder":{"type":"object","description":"A fish of the sea floor.","properties":{"color":{"type":"string","description":"Its colour by day."}},
		"x-kubernetes-group-version-kind":[{"group":"wardle.example.com","kind":"Flunder","version":"v1"},{"group":"","kind":"Pod","version":"v1"}]}}}`
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/apis/wardle.example.com/v1":
			_, _ = io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"wardle.example.com/v1","resources":[{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get","list"]}]}`)
		case "/openapi/v2":
			_, _ = io.WriteString(w, document)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	a, svc := wardle(t, srv)
	h := newHub(t, func(c *apiserver.Config) { c.Aggregated, c.OpenAPI = a, swagger.New(c.OpenAPI, a, c.Log) })
	if err := a.Look(t.Context(), svc); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ kind, want string }{
		"its kind":  {"flunders", "A fish of the sea floor."},
		"its field": {"flunders.color", "Its colour by day."},
		"a Pod":     {"pods.spec.containers.image", "Container image name."},
	} {
		if out, code := h.kubectl("", "explain", "--output=plaintext-openapiv2", c.kind); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %s", what, code, out)
		}
	}
	first := h.do("GET", "/openapi/v2", "")
	if again := h.do("GET", "/openapi/v2", "", "If-None-Match: "+first.header.Get("ETag")); first.code != 200 || !strings.Contains(first.body, "com.example.wardle.Flunder") || again.code != 304 {
		t.Errorf("%d, then %d", first.code, again.code)
	}
	const binary = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	if b := h.do("GET", "/openapi/v2", "", "Accept: "+binary); b.code != 200 || !strings.Contains(b.body, "com.example.wardle.Flunder") || b.header.Get("Content-Type") != "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" {
		t.Errorf("as protobuf: %d, %s", b.code, b.header.Get("Content-Type"))
	}
}
