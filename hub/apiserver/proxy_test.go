package apiserver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
)

// onePlace reaches the same server as every pod, Service and node.
type onePlace struct{ address string }

func (p onePlace) DialPod(context.Context, string, string, int32) (net.Conn, error) {
	return net.Dial("tcp", p.address)
}

func (p onePlace) DialServicePod(_ context.Context, _, name, _ string) (net.Conn, error) {
	if name == "dark" {
		return nil, apierrors.NewServiceUnavailable(`no endpoints available for service "dark"`)
	}
	return net.Dial("tcp", p.address)
}

func (p onePlace) DialNode(context.Context, string, int32) (net.Conn, error) {
	return net.Dial("tcp", p.address)
}

// asked remembers what was asked about proxies.
type asked struct {
	auth.Authorizer
	mu   sync.Mutex
	what []string
}

func (a *asked) Authorize(ctx context.Context, u auth.User, at auth.Attributes) (bool, string, error) {
	if at.Subresource == "proxy" {
		a.mu.Lock()
		a.what = append(a.what, fmt.Sprintf("%s %s/%s/%s", at.Verb, at.Plural, at.Namespace, at.Name))
		a.mu.Unlock()
	}
	return a.Authorizer.Authorize(ctx, u, at)
}

// TestProxy passes requests on to a Service, by HTTP/2 and with a body larger than what the API itself takes, and checks which
// right each asks for.
func TestProxy(t *testing.T) {
	t.Parallel()
	workload := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Method, r.RequestURI, n)
	}))
	defer workload.Close()
	policy := &asked{Authorizer: auth.Union{auth.Masters{}}}
	h := newHub(t, func(c *apiserver.Config) {
		c.Dialer, c.Authorizer = onePlace{workload.Listener.Addr().String()}, policy
	})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(t, h.pki), ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	const services = "/api/v1/namespaces/default/services/"
	for _, c := range []struct {
		method, path string
		body         int64
		code         int
		want, right  string
	}{
		{"GET", services + "web:http/proxy/a/b?watch=1&fieldSelector=x", 0, 200, "GET /a/b?watch=1&fieldSelector=x 0", "get services/default/web:http"},
		{"HEAD", services + "web/proxy/", 0, 200, "", "get services/default/web"},
		{"POST", services + "web/proxy/up", 5 << 20, 200, "POST /up 5242880", "create services/default/web"},
		{"PUT", services + "web/proxy/", 0, 200, "PUT / 0", "update services/default/web"},
		{"PATCH", services + "web/proxy/", 0, 200, "PATCH / 0", "patch services/default/web"},
		{"DELETE", services + "web/proxy/", 0, 200, "DELETE / 0", "delete services/default/web"},
		{"OPTIONS", services + "web/proxy/", 0, 200, "OPTIONS / 0", "other services/default/web"},
		{"BREW", services + "web/proxy/", 0, 405, "does not allow this method", "other services/default/web"},
		{"GET", "/api/v1/nodes/n1/proxy/pods", 0, 200, "GET /pods 0", "get nodes//n1"},
		{"GET", "/api/v1/namespaces/default/pods/none/proxy/", 0, 404, `pods \"none\" not found`, "get pods/default/none"},
		{"GET", services + "dark/proxy/", 0, 503, `no endpoints available for service \"dark\"`, "get services/default/dark"},
		{"GET", services + "web/status/below", 0, 404, "could not find", ""},
	} {
		policy.what = nil
		var body io.Reader
		if c.body > 0 {
			body = io.LimitReader(endless{}, c.body)
		}
		req, err := http.NewRequest(c.method, h.url+c.path, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if right := strings.Join(policy.what, ","); resp.StatusCode != c.code || !strings.Contains(string(b), c.want) || right != c.right {
			t.Errorf("%s %s by %s: %d %s, asked for %q; want %d %s, %q", c.method, c.path, resp.Proto, resp.StatusCode, b, right, c.code, c.want, c.right)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
