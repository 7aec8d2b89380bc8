// Package proxy passes HTTP requests on to pods, Services and nodes: what comes below .../proxy goes to the workload as it is, and
// its answer to the client, upgrades (WebSocket) included.
//
//	GET .../services/https:web:443/proxy/a?b=c ─► GET /a?b=c, by TLS, to a ready pod of the Service
//
// As on Kubernetes: the host name of the request stays, links and redirects in HTML that begin with "/" get the path of the proxy
// in front, certificates of workloads are not verified. Bodies are streamed in both directions; none is held. The workload never
// sees the credentials of the client.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"petrel.dev/petrel/hub/auth"
)

// Config is what a Server needs. All of it is required.
type Config struct {
	Dialer Dialer
	Log    *slog.Logger
}

// Server passes requests on. It is safe for concurrent use.
type Server struct {
	cfg       Config
	transport http.RoundTripper // of all requests: connections are used again for a moment
}

// New returns a server.
func New(cfg Config) *Server { return &Server{cfg: cfg, transport: newTransport(cfg.Dialer)} }

// Request is a client's request for a pod, a Service or a node.
type Request struct {
	W http.ResponseWriter
	// R's context ends the request: with the client, or when the hub stops.
	R         *http.Request
	Plural    string // pods, services or nodes
	Namespace string
	ID        string // NAME, NAME:PORT or SCHEME:NAME:PORT
	// Pod returns a pod of the namespace, shared: read-only.
	Pod func(name string) (*corev1.Pod, error)
	// Fail answers with the error's Status. It is called at most once, and only before anything else was answered.
	Fail func(error)
}

// flushAfter is how long bytes of an answer with a known length may wait for more; others do not wait.
const flushAfter = 200 * time.Millisecond

// Serve serves one request. It returns when the answer has ended.
func (s *Server) Serve(q Request) {
	base, rest := split(q.R.URL, q.Namespace != "")
	if rest == "" && (q.R.Method == http.MethodGet || q.R.Method == http.MethodHead) && q.R.Header.Get("Upgrade") == "" {
		// A page at ".../proxy" would resolve its relative links beside it, not below.
		to := base + "/"
		if q.R.URL.RawQuery != "" {
			to += "?" + q.R.URL.RawQuery
		}
		q.W.Header().Set("Location", to)
		q.W.WriteHeader(http.StatusMovedPermanently)
		return
	}
	to, err := q.target()
	if err != nil {
		q.Fail(err)
		return
	}
	if q.R.Body != nil && q.R.Body != http.NoBody {
		q.R.Body = newBody(q.W, q.R.Body)
		defer q.R.Body.Close()
	}
	links := links{prefix: base, host: q.R.Host}
	rp := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { rewrite(r, to, rest, base) },
		Transport:      s.transport,
		FlushInterval:  flushAfter,
		ModifyResponse: links.response,
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			q.Fail(reason(r.Context(), err))
		},
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	rp.ServeHTTP(q.W, q.R)
}

// split cuts the path of a request behind ".../proxy", in its escaped form where that has the same parts as the plain one.
func split(u *url.URL, namespaced bool) (base, rest string) {
	n := 5 // api v1 nodes NAME proxy
	if namespaced {
		n = 7
	}
	base, rest = cut(u.EscapedPath(), n)
	plainBase, plainRest := cut(u.Path, n)
	if b, err := url.PathUnescape(base); err != nil || b != plainBase {
		return (&url.URL{Path: plainBase}).EscapedPath(), (&url.URL{Path: plainRest}).EscapedPath()
	}
	return base, rest
}

// cut cuts a path behind its first n parts. rest is empty or begins with a slash.
func cut(path string, n int) (before, rest string) {
	at := len(path) - len(strings.TrimLeft(path, "/"))
	for range n - 1 {
		i := strings.IndexByte(path[at:], '/')
		if i < 0 {
			return path, ""
		}
		at += i + 1
	}
	if i := strings.IndexByte(path[at:], '/'); i >= 0 {
		return path[:at+i], path[at+i:]
	}
	return path, ""
}

// target returns where a request goes: a scheme, and what the transport's dialer understands as a host.
func (q *Request) target() (*url.URL, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(q.ID)
	if !ok {
		return nil, apierrors.NewBadRequest("invalid " + strings.TrimSuffix(q.Plural, "s") + " request " + strconv.Quote(q.ID))
	}
	if scheme == "" {
		scheme = "http"
	}
	switch q.Plural {
	case "pods":
		pod, err := q.Pod(name)
		if err != nil {
			return nil, err
		}
		if port == "" {
			port = defaultPort(pod, scheme)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, apierrors.NewBadRequest("port " + strconv.Quote(port) + " of pod " + strconv.Quote(name) + " is not a number")
		}
	case "nodes":
		if port == kubeletPort {
			port = ""
		}
		if port == "" { // the agent itself; there is no other way to it than the link, which is sealed
			scheme = "http"
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, apierrors.NewBadRequest("port " + strconv.Quote(port) + " of node " + strconv.Quote(name) + " is not a number")
		}
	}
	return &url.URL{Scheme: scheme, Host: place{q.Plural, q.Namespace, name, port}.host()}, nil
}

// kubeletPort is the port under which clients of Kubernetes know a node's own API.
const kubeletPort = "10250"

// defaultPort returns the first port that a pod declares, otherwise the scheme's.
func defaultPort(pod *corev1.Pod, scheme string) string {
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// rewrite makes the request that goes to the workload.
func rewrite(r *httputil.ProxyRequest, to *url.URL, rest, base string) {
	u := *to
	u.RawQuery = r.In.URL.RawQuery
	u.Path, u.RawPath = rest, rest
	if plain, err := url.PathUnescape(rest); err == nil {
		u.Path = plain
	}
	if u.Path == "" {
		u.Path, u.RawPath = "/", ""
	}
	r.Out.URL = &u
	r.Out.Host = r.In.Host
	h := r.Out.Header
	auth.DropCredentials(h)
	h["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	host, proto := r.In.Header["X-Forwarded-Host"], r.In.Header["X-Forwarded-Proto"]
	r.SetXForwarded() // adds the client's address
	h["X-Forwarded-Host"], h["X-Forwarded-Proto"] = host, proto
	h.Set("X-Forwarded-Uri", base+u.EscapedPath())
}

// reason returns the error that answers a request which could not be passed on.
func reason(ctx context.Context, err error) error {
	var known apierrors.APIStatus
	switch {
	case errors.As(err, &known):
		return err
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	}
	return apierrors.NewServiceUnavailable("error trying to reach service: " + err.Error())
}
