package hub

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// startHub runs a hub in this process; stop ends it.
func startHub(t *testing.T, broker string) (h *Hub, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	h, err := New(ctx, Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", Broker: broker, Backups: -1, Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	return h, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("hub: %v", err)
		}
	}
}

// get returns the answer to one of the open paths; the code is 0 while nobody answers.
func (h *Hub) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	a, err := c.Get(h.URL() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

func (h *Hub) eventually(t *testing.T, path string, code int, text string) {
	t.Helper()
	var got int
	var body string
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		if got, body = h.get(t, path); got == code && strings.Contains(body, text) {
			return
		}
	}
	t.Fatalf("%s answers %d %q, want %d with %q", path, got, body, code, text)
}

// Each check looks at the part that it is named after, in a hub as it runs: before a part runs, and after, its check fails.
func TestReadyChecksTheParts(t *testing.T) {
	h, stop := startHub(t, "")
	h.eventually(t, "/readyz?verbose", 200, "[+]ping ok\n[+]store ok\n[+]feed ok\n[+]broker ok\n[+]shutdown ok\nreadyz check passed\n")
	for _, obj := range h.components() {
		if c := obj.(*corev1.ComponentStatus).Conditions; len(c) != 1 || c[0].Status != corev1.ConditionTrue || c[0].Message != "ok" {
			t.Errorf("ComponentStatus %s: %+v", obj.GetName(), c)
		}
	}
	stop()
	if c := h.components()[1].(*corev1.ComponentStatus); c.Name != "feed" || c.Conditions[0].Status != corev1.ConditionFalse || c.Conditions[0].Error == "" {
		t.Errorf("after the hub has ended: %+v", c)
	}
	for _, c := range h.checks() {
		if err := c.Health(); err == nil && c.Name != "store" || c.Advisory {
			t.Errorf("%s of a hub that has ended: %v, advisory %v", c.Name, err, c.Advisory)
		}
	}
}

// An external broker that is away leaves the API ready, and is named by its own check, without the broker's address or
// password: /readyz needs no credentials.
func TestExternalBrokerAway(t *testing.T) {
	const addr = "127.0.0.1:1" // nobody is there
	h, stop := startHub(t, "mqtt://user:secret@"+addr)
	defer stop()
	h.eventually(t, "/readyz", 200, "ok")
	h.eventually(t, "/readyz/broker", 503, "[-]broker failed: the external broker is not connected")
	code, body := h.get(t, "/readyz?verbose")
	if code != 200 || !strings.Contains(body, "[-]broker failed") || !strings.HasSuffix(body, "readyz check passed\n") ||
		strings.Contains(body, addr) || strings.Contains(body, "secret") {
		t.Errorf("%d %s", code, body)
	}
}
