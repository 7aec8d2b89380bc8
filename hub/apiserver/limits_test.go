package apiserver_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth/satoken"
)

// byHand opens a connection that the test speaks HTTP/1.1 on by hand, with the administrator's certificate.
func (h *hub) byHand(t *testing.T) *tls.Conn {
	t.Helper()
	cfg := clientTLS(h.t, h.pki)
	cfg.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", strings.TrimPrefix(h.url, "https://"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// robot is a client with the token of a ServiceAccount, so another user than the administrator.
func (h *hub) robot(t *testing.T) *http.Client {
	t.Helper()
	sa, err := h.client().CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := h.pki.Tokens().IssueToken(t.Context(), sa, satoken.Bound{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: clientTLS(h.t, h.pki).RootCAs}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: bearerTransport{tr, token}}
}

type bearerTransport struct {
	http.RoundTripper
	token string
}

func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

// Bodies that do not arrive hold a third of the slots at most, for as long as the grace lasts; others are served, and
// health checks answer.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	for grace := 3 * time.Second; !slowBodies(t, grace); grace *= 2 {
		if grace > time.Minute {
			t.Fatal("this machine is too slow to see anything within a minute")
		}
	}
}

// slowBodies returns false when the grace was over before the test had looked at what goes on during it: that proves nothing.
func slowBodies(t *testing.T, grace time.Duration) bool {
	t.Helper()
	h := newHub(t, func(c *apiserver.Config) {
		c.Limits = apiserver.Limits{InFlight: 9, BodyGrace: grace}
	})
	bootstrap(t, h.reg.Client())
	robot := h.robot(t)
	// The hub's view of the new account follows within moments.
	for begin := time.Now(); send(t, robot, "GET", h.url+"/api/v1", "").code != 200; {
		if time.Since(begin) > time.Minute {
			t.Fatal("the robot is not let in")
		}
	}
	var slow []*tls.Conn
	began := time.Now()
	for range 3 {
		c := h.byHand(t)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n{", configMaps)
		slow = append(slow, c)
	}
	var refused answer
	for refused.code != 429 && time.Since(began) < grace {
		refused = h.do("GET", configMaps, "")
	}
	another := send(t, robot, "GET", h.url+"/api/v1", "")
	health := map[string]answer{}
	for _, path := range []string{"/readyz", "/livez", "/healthz"} {
		health[path] = h.do("GET", path, "")
	}
	if time.Since(began) >= grace && refused.code != 429 {
		return false
	}
	if refused.header.Get("Retry-After") != "1" || !strings.Contains(refused.body, `too many requests of user \"petrel-admin\" at once: 3 of 3 are in use`) {
		t.Errorf("%+v", refused)
	}
	if another.code != 200 {
		t.Errorf("another user: %+v", another)
	}
	for path, a := range health {
		if a.code != 200 {
			t.Errorf("%s: %+v", path, a)
		}
	}
	for _, c := range slow {
		b, err := io.ReadAll(c) // the hub closes
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 408 ") || !strings.Contains(string(b), "came too slowly") {
			t.Errorf("%v: %.300s", err, b)
		}
	}
	if a := h.do("GET", configMaps, ""); a.code != 200 {
		t.Errorf("afterwards: %+v", a)
	}
	return true
}

// A body that is refused unread must not hold anything either: net/http reads it before it answers.
func TestSlowBodyOfStranger(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) { c.Limits = apiserver.Limits{BodyGrace: 300 * time.Millisecond} })
	c, err := tls.Dial("tcp", strings.TrimPrefix(h.url, "https://"), &tls.Config{RootCAs: clientTLS(h.t, h.pki).RootCAs, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{", configMaps)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 401 ") {
		t.Errorf("%v: %.300s", err, b)
	}
}

// When all slots are taken there is still an answer to "are you well?".
func TestHealthAnswersWhenFull(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) { c.Limits = apiserver.Limits{InFlight: 1, BodyGrace: time.Minute} })
	// A body that comes while the test looks whether the slot is taken is refused itself, and another one is sent.
	taken := func() bool {
		c := h.byHand(t)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n{", configMaps)
		for range 100 {
			if a := h.do("GET", "/version", ""); a.code == 429 && a.header.Get("Retry-After") == "1" {
				return true
			}
		}
		return false
	}
	for begin := time.Now(); !taken(); {
		if time.Since(begin) > time.Minute {
			t.Fatal("the one slot is not taken")
		}
	}
	if a := h.do("GET", "/readyz", ""); a.code != 200 {
		t.Errorf("%+v", a)
	}
}

// Bodies count in bytes that have arrived.
func TestBodyBytes(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) { c.Limits = apiserver.Limits{BodyBytes: 300 << 10} })
	small := configMap("a", `,"data":{"a":"`+strings.Repeat("x", 50<<10)+`"}`)
	large := configMap("b", `,"data":{"a":"`+strings.Repeat("x", 120<<10)+`"}`)
	if a := h.do("POST", configMaps, small, "Content-Type: application/json"); a.code != 201 {
		t.Errorf("%d %.200s", a.code, a.body)
	}
	if a := h.do("POST", configMaps, large, "Content-Type: application/json"); a.code != 429 || !strings.Contains(a.body, "too many bytes of request bodies") {
		t.Errorf("%d %.200s", a.code, a.body)
	}
	for range 10 { // what was taken is given back
		if a := h.do("PUT", configMaps+"/a", small, "Content-Type: application/json"); a.code != 200 {
			t.Fatalf("%d %.200s", a.code, a.body)
		}
	}
}

// longRunning is what the hub says of its open watches and streams.
func (h *hub) longRunning() (n int) {
	for line := range strings.SplitSeq(h.do("GET", "/metrics", "").body, "\n") {
		if rest, ok := strings.CutPrefix(line, "apiserver_longrunning_requests "); ok {
			_, _ = fmt.Sscan(rest, &n)
		}
	}
	return n
}

// A watch whose client does not read ends, also when nothing else would end it.
func TestStalledWatchEnds(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, func(c *apiserver.Config) { c.Limits = apiserver.Limits{WritePatience: 3 * time.Second} })
			if proto == "h2" {
				tr := &http.Transport{TLSClientConfig: clientTLS(h.t, h.pki), ForceAttemptHTTP2: true}
				resp, err := (&http.Client{Transport: tr}).Get(h.url + configMaps + "?watch=true&timeoutSeconds=3600")
				if err != nil || resp.ProtoMajor != 2 {
					t.Fatal(resp, err)
				}
				defer resp.Body.Close()
			} else {
				fmt.Fprintf(h.byHand(t), "GET %s?watch=true&timeoutSeconds=3600 HTTP/1.1\r\nHost: hub\r\n\r\n", configMaps)
			}
			for begin := time.Now(); h.longRunning() != 1; {
				if time.Since(begin) > time.Minute {
					t.Fatal("no watch")
				}
			}
			large := strings.Repeat("x", 1<<20)
			for i := range 16 {
				if a := h.do("POST", configMaps, configMap(fmt.Sprint("c", i), `,"data":{"a":"`+large+`"}`), "Content-Type: application/json"); a.code != 201 {
					t.Fatalf("%d %.200s", a.code, a.body)
				}
			}
			for begin := time.Now(); h.longRunning() != 0; time.Sleep(50 * time.Millisecond) {
				if time.Since(begin) > time.Minute {
					t.Fatal("the watch is still open")
				}
			}
		})
	}
}

// A watch that is silent for longer than a write may take goes on.
func TestSilentWatchGoesOn(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) { c.Limits = apiserver.Limits{WritePatience: time.Second} })
	watches := map[string]io.Reader{} // by protocol
	for _, proto := range []string{"http/1.1", "h2"} {
		cfg := clientTLS(h.t, h.pki)
		cfg.NextProtos = []string{proto}
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: proto == "h2"}
		resp, err := (&http.Client{Transport: tr}).Get(h.url + configMaps + "?watch=true")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		watches[proto] = resp.Body
	}
	time.Sleep(3 * time.Second) // three patiences
	for proto, watch := range watches {
		name := strings.ReplaceAll(strings.ReplaceAll(proto, "/", "-"), ".", "-")
		if a := h.do("POST", configMaps, configMap(name, ""), "Content-Type: application/json"); a.code != 201 {
			t.Fatalf("%+v", a)
		}
		buf := make([]byte, 4096)
		if n, err := watch.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "ADDED") {
			t.Errorf("%s: %q, %v", proto, buf[:n], err)
		}
	}
}

// Watches have a budget, of one user and of all.
func TestTooManyWatches(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) { c.Limits = apiserver.Limits{Watches: 6} })
	for range 2 {
		fmt.Fprintf(h.byHand(t), "GET %s?watch=true HTTP/1.1\r\nHost: hub\r\n\r\n", configMaps)
	}
	for begin := time.Now(); h.longRunning() != 2; {
		if time.Since(begin) > time.Minute {
			t.Fatal("no watches")
		}
	}
	a := h.do("GET", configMaps+"?watch=true", "")
	if a.code != 429 || !strings.Contains(a.body, `too many watches of user \"petrel-admin\"`) {
		t.Errorf("%+v", a)
	}
	if a := h.do("GET", configMaps, ""); a.code != 200 {
		t.Errorf("%+v", a)
	}
}

// A page of another site cannot use the certificate that a browser holds.
func TestBrowsersOfOtherSites(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	host := strings.TrimPrefix(h.url, "https://")
	post := func(headers ...string) int {
		return h.do("POST", configMaps+"?dryRun=All", configMap("a", ""), headers...).code
	}
	for _, tt := range []struct {
		name string
		code int
		got  int
	}{
		{"a form of another site", 403, post("Origin: https://evil.example", "Content-Type: text/plain")},
		{"a script without a type", 403, post("Origin: https://evil.example")},
		{"a page from a file", 403, post("Origin: null", "Content-Type: application/json")},
		{"fetch metadata alone", 403, post("Sec-Fetch-Site: cross-site", "Content-Type: application/json")},
		{"another port of the same host", 403, post("Sec-Fetch-Site: same-site", "Content-Type: application/json")},
		{"the same origin", 201, post("Origin: https://"+host, "Content-Type: application/json")},
		{"no browser", 201, post("Content-Type: application/json")},
		{"no browser, no type", 201, post()},
		{"a library that has to name an origin", 201, post("Origin: http://localhost", "Content-Type: application/json")},
		{"a page of a server on the user's machine", 403, post("Origin: http://localhost:3000", "Sec-Fetch-Site: cross-site", "Content-Type: application/json")},
		{"a name that only begins like it", 403, post("Origin: http://localhost.evil.example", "Content-Type: application/json")},
		{"reading", 200, h.do("GET", configMaps, "", "Origin: https://evil.example").code},
		{"exec in a pod", 403, h.do("GET", "/api/v1/namespaces/default/pods/x/exec?command=sh&stdin=1", "", "Origin: https://evil.example", "Connection: Upgrade", "Upgrade: websocket").code},
	} {
		if tt.got != tt.code {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.code)
		}
	}
	if a := send(t, h.robot(t), "POST", h.url+configMaps, configMap("a", ""), "Origin: https://evil.example"); strings.Contains(a.body, "another site") {
		t.Errorf("a token is nothing that a browser sends by itself: %+v", a)
	}
}

// YAML costs its parser some 200 times its size.
func TestYAMLIsBounded(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	body := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx: [" + strings.Repeat("{},", 200<<10) + "{}]\n"
	a := h.do("POST", configMaps, body, "Content-Type: application/yaml")
	if a.code != 413 || !strings.Contains(a.body, "a body in YAML may have 524288 bytes") {
		t.Errorf("%d %.300s", a.code, a.body)
	}
	if a := h.do("DELETE", configMaps+"/a", body, "Content-Type: application/yaml"); a.code != 413 {
		t.Errorf("delete options: %d %.300s", a.code, a.body)
	}
}

// lines is a log that the test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What strangers send does not fill the log, whatever it is and however it alternates.
func TestRefusalsInTheLogAreBounded(t *testing.T) {
	t.Parallel()
	var log lines
	h := newHub(t, func(c *apiserver.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: clientTLS(h.t, h.pki).RootCAs}}}
	for i := range 50 {
		token := "letmein"
		if i%2 == 1 {
			token = "e30.e30." + strings.Repeat("x", 4000)
		}
		if a := send(t, c, "GET", h.url+"/api", "", "Authorization: Bearer "+token); a.code != 401 {
			t.Fatalf("%+v", a)
		}
	}
	if n := strings.Count(log.String(), "credentials refused"); n < 1 || n > 2 {
		t.Errorf("%d lines", n)
	}
	if len(log.String()) > 4096 {
		t.Errorf("%d bytes of log", len(log.String()))
	}
}

// TestDecodedBodiesAreBounded checks that a body which would take much more memory than it has bytes is refused before it is decoded, in
// each form, and that what its user holds ends with the request.
func TestDecodedBodiesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	entries := strings.TrimSuffix(strings.Repeat("{},", 60_000), ",")
	pods := "/api/v1/namespaces/default/pods"
	for name, test := range map[string]struct{ method, path, contentType, body string }{
		"JSON":     {"POST", pods, "application/json", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[` + entries + `]}}`},
		"YAML":     {"POST", pods, "application/yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [" + entries + "]}\n"},
		"protobuf": {"POST", pods, "application/vnd.kubernetes.protobuf", "k8s\x00\x12\xc4\xa9\x07\x12\xc0\xa9\x07" + strings.Repeat("\x12\x00", 60_000)},
		"CBOR":     {"POST", pods, "application/cbor", "\xa1\x64spec\xa1\x6acontainers\x9f" + strings.Repeat("\xa0", 60_000) + "\xff"},
		"a patch":  {"PATCH", configMaps + "/a", "application/merge-patch+json", `{"a":[` + strings.ReplaceAll(entries+","+entries, "{}", `{"":0}`) + `]}`},
	} {
		if a := h.do(test.method, test.path, test.body, "Content-Type: "+test.contentType); a.code != 413 || !strings.Contains(a.body, "of memory") {
			t.Errorf("%s: %d %.200s", name, a.code, a.body)
		}
	}
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	if a := h.do("PATCH", configMaps+"/a", deep, "Content-Type: application/merge-patch+json"); a.code != 400 || !strings.Contains(a.body, "nested more than 1000 deep") {
		t.Errorf("deep: %d %.200s", a.code, a.body)
	}
	for range 3 { // each takes two thirds of what one user may have
		body := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[` + strings.TrimSuffix(strings.Repeat("{},", 13_000), ",") + `]}}`
		if a := h.do("POST", pods, body, "Content-Type: application/json"); a.code != 422 || !strings.Contains(a.body, " more") {
			t.Errorf("below the bound: %d %.200s", a.code, a.body)
		}
	}
}
