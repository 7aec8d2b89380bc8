package apiserver

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

func isHealthPath(p string) bool {
	return p == "healthz" || p == "livez" || p == "readyz"
}

// Check is one named check of /readyz.
type Check struct {
	Name string // one path segment
	// Health returns what is wrong now, or nil. It returns at once and may be called from any goroutine. Its text
	// is shown without credentials, so it names no address, user or secret.
	Health func() error
	// Advisory marks a check that the API does not need: its failure is listed, and fails /readyz/NAME, but not /readyz.
	Advisory bool
}

// check is the result of one Check.
type check struct {
	name     string
	err      error
	advisory bool // a failure does not fail the whole
}

// serveHealth answers "ok", or which check failed. ?verbose lists all; /readyz/NAME asks for one; ?exclude=NAME
// leaves one out.
func (s *server) serveHealth(x *exchange, p []string) {
	checks := []check{{name: "ping"}}
	if p[0] == "readyz" {
		for _, c := range s.Ready {
			checks = append(checks, check{name: c.Name, err: c.Health(), advisory: c.Advisory})
		}
		stopping := check{name: "shutdown"}
		select {
		case <-s.Closing:
			stopping.err = errClosing
		default:
		}
		checks = append(checks, stopping)
	}
	if len(p) > 1 {
		name := strings.Join(p[1:], "/")
		one := checks[:0]
		for _, c := range checks {
			if c.name == name {
				c.advisory = false // the request names it
				one = append(one, c)
			}
		}
		if checks = one; len(checks) == 0 {
			x.fail(errNoSuchPath())
			return
		}
	}
	x.writeHealth(p[0], checks)
}

// writeHealth answers with the result of checks: 500 when one fails that is neither advisory nor excluded.
func (x *exchange) writeHealth(path string, checks []check) {
	var b strings.Builder
	failed := false
	excluded := x.query["exclude"]
	for _, c := range checks {
		switch {
		case slices.Contains(excluded, c.name):
			fmt.Fprintf(&b, "[+]%s excluded: ok\n", c.name)
		case c.err != nil:
			failed = failed || !c.advisory
			fmt.Fprintf(&b, "[-]%s failed: %v\n", c.name, c.err)
		default:
			fmt.Fprintf(&b, "[+]%s ok\n", c.name)
		}
	}
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	_, verbose := x.query["verbose"]
	switch {
	case failed:
		x.w.WriteHeader(http.StatusServiceUnavailable)
		x.write(x.w, []byte(b.String()+path+" check failed\n"))
	case verbose:
		x.write(x.w, []byte(b.String()+path+" check passed\n"))
	default:
		x.write(x.w, []byte("ok"))
	}
}

// servePaths answers / with the paths that are served.
func (s *server) servePaths(x *exchange) {
	paths := []string{"/api", "/api/v1", "/apis"}
	for _, g := range s.kinds().All() {
		if g.Name == "" {
			continue
		}
		paths = append(paths, "/apis/"+g.Name)
		for _, v := range g.Versions {
			paths = append(paths, "/apis/"+v.String())
		}
	}
	paths = append(paths, "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version")
	x.writeJSON(http.StatusOK, map[string]any{"paths": paths})
}

// serveOpenID serves OpenID Connect discovery: other programs verify ServiceAccount tokens by it.
func (s *server) serveOpenID(x *exchange) {
	if strings.HasSuffix(x.r.URL.Path, "jwks") {
		x.w.Header().Set("Cache-Control", "public, max-age=3600") // as upstream; who finds a token's key missing reads again
		x.writeBytes(http.StatusOK, "application/jwk-set+json", s.JWKS())
		return
	}
	x.writeJSON(http.StatusOK, map[string]any{
		"issuer":                                "https://kubernetes.default.svc",
		"jwks_uri":                              "https://kubernetes.default.svc/openid/v1/jwks",
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	})
}
