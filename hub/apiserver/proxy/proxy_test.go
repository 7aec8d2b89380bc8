package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// fleet is workloads by "plural/namespace/name:port", each at an address of this machine.
type fleet map[string]string

func (f fleet) dial(key string) (net.Conn, error) {
	address, ok := f[key]
	switch {
	case !ok:
		return nil, errors.New(key + ": connection refused")
	case address == "dark":
		return nil, apierrors.NewServiceUnavailable("node n was last heard of at noon")
	}
	return net.Dial("tcp", address)
}

func (f fleet) DialPod(_ context.Context, namespace, name string, port int32) (net.Conn, error) {
	return f.dial(fmt.Sprintf("pods/%s/%s:%d", namespace, name, port))
}

func (f fleet) DialServicePod(_ context.Context, namespace, name, port string) (net.Conn, error) {
	return f.dial("services/" + namespace + "/" + name + ":" + port)
}

func (f fleet) DialNode(_ context.Context, node string, port int32) (net.Conn, error) {
	return f.dial(fmt.Sprintf("nodes/%s:%d", node, port))
}

// workload answers with what it got.
func workload(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/ws":
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat"}}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, b, err := conn.ReadMessage()
			if err != nil {
				return
			}
			_ = conn.WriteMessage(kind, append([]byte("echo "), b...))
		}
	case r.URL.Path == "/moved":
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	case r.URL.Path == "/page":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><a href="/rewriteme">test</a> <A HREF='rel'>x</A><img src="//cdn/x.png"><!-- <a href="/c"> --><p class="/a">`)
	case r.URL.Path == "/packed":
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `<script src="/a.js"></script>`)
		z.Close()
	case r.URL.Path == "/broken":
		panic(http.ErrAbortHandler)
	default:
		w.Header().Set("Answered", "yes")
		w.WriteHeader(http.StatusTeapot)
		b, _ := io.ReadAll(r.Body)
		var secret []string
		for name := range r.Header {
			if name == "Authorization" || strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Remote-") {
				secret = append(secret, name)
			}
		}
		fmt.Fprintf(w, "%s %s host=%s for=%s uri=%s secret=%v %d", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Uri"), secret, len(b))
	}
}

// serve returns a hub's proxy to workloads; the URL is that of the proxy of a pod "web" with one declared port.
func serve(t *testing.T) (url string) {
	t.Helper()
	plain, secure := httptest.NewServer(http.HandlerFunc(workload)), httptest.NewTLSServer(http.HandlerFunc(workload))
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	at := plain.Listener.Addr().String()
	f := fleet{"pods/ns/web:8080": at, "pods/ns/web:443": secure.Listener.Addr().String(), "services/ns/web:http": at, "services/ns/web:": at,
		"services/ns/dark:": "dark", "nodes/n.example:0": at, "nodes/n.example:9100": at}
	s := New(Config{Dialer: f, Log: slog.New(slog.DiscardHandler)})
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{}, {Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}}}
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/")
		q := Request{W: w, R: r, Plural: p[0], ID: p[1], Pod: func(name string) (*corev1.Pod, error) {
			if name != "web" {
				return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
			}
			return pod, nil
		}, Fail: func(err error) {
			var known apierrors.APIStatus
			if !errors.As(err, &known) {
				known = apierrors.NewInternalError(err)
			}
			http.Error(w, known.Status().Message, int(known.Status().Code))
		}}
		if p[0] == "namespaces" {
			q.Namespace, q.Plural, q.ID = p[1], p[2], p[3]
		}
		s.Serve(q)
	}))
	t.Cleanup(hub.Close)
	return hub.URL
}

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// TestRequests covers where requests go and what of them arrives there, and each refusal's text.
func TestRequests(t *testing.T) {
	hub := serve(t)
	host := strings.TrimPrefix(hub, "http://")
	const ns = "/api/v1/namespaces/ns"
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string // part of the answer
	}{
		{"GET", ns + "/pods/web/proxy/", "", 418, "GET / host=" + host + " for=127.0.0.1 uri=" + ns + "/pods/web/proxy/ secret=[] 0"},
		{"GET", ns + "/pods/web:8080/proxy/a%2Fb/c%20d/?x=1&y=/proxy", "", 418, "GET /a%2Fb/c%20d/?x=1&y=/proxy host="},
		{"GET", ns + "/pods/web/proxy/a//b/../c?watch=1", "", 418, "GET /a//b/../c?watch=1 host="},
		{"POST", ns + "/pods/http:web:8080/proxy/up", "hello", 418, "POST /up host=" + host + " for=127.0.0.1 uri=" + ns + "/pods/http:web:8080/proxy/up secret=[] 5"},
		{"POST", ns + "/pods/web/proxy", "hello", 418, "POST / host="},
		{"OPTIONS", ns + "/services/web:http/proxy/o", "", 418, "OPTIONS /o"},
		{"DELETE", ns + "/services/web/proxy/o", "", 418, "DELETE /o"},
		{"GET", ns + "/pods/https:web:443/proxy/t", "", 418, "GET /t"},
		{"GET", ns + "/pods/https%3Aweb%3A443/proxy/a%2Fb", "", 418, "GET /a%2Fb"},
		{"GET", "/api/v1/nodes/n.example/proxy/stats/summary", "", 418, "GET /stats/summary"},
		{"GET", "/api/v1/nodes/n.example:10250/proxy/pods", "", 418, "GET /pods"},
		{"GET", "/api/v1/nodes/n.example:9100/proxy/metrics", "", 418, "GET /metrics"},
		{"GET", ns + "/pods/web/proxy?a=b", "", 301, ""},
		{"GET", ns + "/pods/none/proxy/", "", 404, `pods "none" not found`},
		{"GET", ns + "/pods/ftp:web:1/proxy/", "", 400, `invalid pod request "ftp:web:1"`},
		{"GET", ns + "/services/a:b:c:d/proxy/", "", 400, `invalid service request "a:b:c:d"`},
		{"GET", ns + "/pods/web:1/proxy/", "", 503, "error trying to reach service: pods/ns/web:1: connection refused"},
		{"GET", ns + "/pods/web:http/proxy/", "", 400, "is not a number"},
		{"GET", ns + "/services/dark/proxy/", "", 503, "node n was last heard of at noon"},
		{"GET", ns + "/services/none_2E/proxy/", "", 503, "error trying to reach service: services/ns/none_2E:: connection refused"},
		{"GET", ns + "/pods/web/proxy/broken", "", 503, "error trying to reach service: "},
	} {
		req, err := http.NewRequest(c.method, hub+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer secret")
		req.Header.Set("Impersonate-User", "someone")
		req.Header.Set("X-Remote-User", "someone")
		resp, err := noRedirects.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.code || !strings.Contains(string(b), c.want) {
			t.Errorf("%s %s: %d %s; want %d %s", c.method, c.path, resp.StatusCode, b, c.code, c.want)
		}
		if c.code == 301 && resp.Header.Get("Location") != ns+"/pods/web/proxy/?a=b" {
			t.Errorf("redirect to %q", resp.Header.Get("Location"))
		}
		if c.code == 418 && resp.Header.Get("Answered") != "yes" {
			t.Errorf("%s: the workload's headers are lost: %v", c.path, resp.Header)
		}
	}
}

// TestLinks checks that redirects and links which lead to the workload's root lead through the proxy, and no others.
func TestLinks(t *testing.T) {
	hub := serve(t)
	base := "/api/v1/namespaces/ns/services/web:http/proxy"
	host := strings.TrimPrefix(hub, "http://")
	for to, want := range map[string]string{"/x/": base + "/x/", "x": "x", "http://elsewhere/x": "http://elsewhere/x", "http://" + host + "/x?q=1": "http://" + host + base + "/x?q=1",
		base + "/y": base + "/y", "/a%2Fb": base + "/a%2Fb"} {
		resp, err := noRedirects.Get(hub + base + "/moved?to=" + strings.ReplaceAll(to, "%", "%25"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("Location %s became %s, not %s", to, got, want)
		}
	}
	for path, want := range map[string]string{
		"/page":   `<!doctype html><a href="` + base + `/rewriteme">test</a> <A HREF='rel'>x</A><img src="//cdn/x.png"><!-- <a href="/c"> --><p class="/a">`,
		"/packed": `<script src="` + base + `/a.js"></script>`,
	} {
		req, err := http.NewRequest("GET", hub+base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != want {
			t.Errorf("%s: %s, %v; want %s", path, b, err, want)
		}
	}
}

// TestLongTokens checks that a page with a tag that is longer than what is held comes through without a byte missing.
func TestLongTokens(t *testing.T) {
	l := links{prefix: "/p", host: "h"}
	for _, long := range []string{"<a href='" + strings.Repeat("x", 3*maxToken) + "'>", strings.Repeat("text ", maxToken), "<!--" + strings.Repeat("-", 2*maxToken)} {
		in := `<a href="/a">` + long + `<b>end</b>`
		b, err := io.ReadAll(newPage(strings.NewReader(in), io.NopCloser(nil), l.through))
		if want := `<a href="/p/a">` + long + `<b>end</b>`; err != nil || !bytes.Equal(b, []byte(want)) {
			t.Errorf("%d bytes became %d: %v", len(in), len(b), err)
		}
	}
}

// TestUpgrade carries a WebSocket, without the token that a browser sends as a subprotocol.
func TestUpgrade(t *testing.T) {
	hub := serve(t)
	d := websocket.Dialer{Subprotocols: []string{"base64url.bearer.authorization.k8s.io.c2VjcmV0", "chat"}}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(hub, "http")+"/api/v1/namespaces/ns/pods/web/proxy/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := resp.Header.Get("Sec-Websocket-Protocol"); got != "chat" {
		t.Errorf("subprotocol %q", got)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := conn.ReadMessage(); err != nil || string(b) != "echo hi" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestLargeBodies checks that bodies of any size pass in both directions without being held.
func TestLargeBodies(t *testing.T) {
	hub := serve(t)
	resp, err := http.Post(hub+"/api/v1/namespaces/ns/pods/web/proxy/up", "", io.LimitReader(zeros{}, 20<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(b), " 20971520") {
		t.Errorf("%s, %v", b, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestPlaces(t *testing.T) {
	for _, p := range []place{{"pods", "a-b", "web.x", "80"}, {"services", "ns", "a_2Eb", "http"}, {"nodes", "", "n.example", ""}, {"services", "ns", "a b+c%", "_"}} {
		got, err := placeOf(net.JoinHostPort(p.host(), "80"))
		if err != nil || got != p {
			t.Errorf("%+v became %+v by %s: %v", p, got, p.host(), err)
		}
	}
}
