package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// shows is a request with the client certificate of a kubeconfig.
func shows(t *testing.T, kubeconfig []byte) *http.Request {
	t.Helper()
	c, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.CertData, c.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/api", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}}
	return r
}

func accepted(t *testing.T, a *Credentials, r *http.Request) bool {
	t.Helper()
	u, ok, err := a.Authenticate(r)
	if err != nil && !strings.Contains(err.Error(), "was revoked at 2026-11-") {
		t.Error(err)
	}
	if ok && u.Groups[0] != "system:masters" {
		t.Errorf("%+v", u)
	}
	return ok
}

func issue(t *testing.T, a *Admins, name string) []byte {
	t.Helper()
	k, err := a.Issue(name, "https://hub:6443", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRevocation checks that a revoked certificate is refused after a restart too, others are not; the hub's own administrator
// gets another key, and its older certificates of the revoked one end as well.
func TestRevocation(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	p := w.load(t, dir)
	admins, err := OpenAdmins(dir)
	if err != nil {
		t.Fatal(err)
	}
	admins.now = w.clock
	alice, bob := shows(t, issue(t, admins, "alice")), shows(t, issue(t, admins, "bob"))
	mine := func(p *PKI) *http.Request {
		k, err := p.Kubeconfig("https://hub:6443")
		if err != nil {
			t.Fatal(err)
		}
		return shows(t, k)
	}
	first := mine(p)
	w.now = w.now.Add(leafLifetime - renewBefore + time.Hour) // another certificate of the same key
	if err := p.reload(); err != nil {
		t.Fatal(err)
	}
	second := mine(p)
	if serialOf(first.TLS.PeerCertificates[0]) == serialOf(second.TLS.PeerCertificates[0]) {
		t.Fatal("the certificate was not renewed")
	}
	w.now = newWorld().now.Add(time.Hour)
	a := NewAuthenticator(p, objects{})
	for name, r := range map[string]*http.Request{"alice": alice, "bob": bob, "first": first, "second": second} {
		if !accepted(t, a, r) {
			t.Errorf("%s is refused", name)
		}
	}
	serial := strings.ToUpper(bob.TLS.PeerCertificates[0].SerialNumber.Text(16))
	for _, who := range []string{"alice", serial, AdminName, "00:11:22:33:44:55:66:77:88:99"} {
		if _, err := admins.Revoke(who); err != nil {
			t.Error(err)
		}
	}
	if _, err := admins.Revoke("carol"); err == nil {
		t.Error("nobody can be revoked")
	}
	if err := p.reload(); err != nil {
		t.Fatal(err)
	}
	for what, p := range map[string]*PKI{"running": p, "restarted": w.load(t, dir)} {
		a := NewAuthenticator(p, objects{})
		for name, r := range map[string]*http.Request{"alice": alice, "bob": bob, "first": first, "second": second} {
			if accepted(t, a, r) {
				t.Errorf("%s: %s is let in", what, name)
			}
		}
		if !accepted(t, a, mine(p)) {
			t.Errorf("%s: the administrator's new certificate is refused", what)
		}
	}
	if !accepted(t, NewAuthenticator(w.load(t, dir), objects{}), shows(t, issue(t, admins, "alice"))) {
		t.Error("a new certificate of a revoked name is refused")
	}
}

// TestRevocationEndsWhatIsOpen checks that a running hub sees the list change and ends the long requests of the revoked, no
// others.
func TestRevocationEndsWhatIsOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("hubs run on Linux")
	}
	dir := t.TempDir()
	p, err := LoadPKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	admins, err := OpenAdmins(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAuthenticator(p, objects{})
	alice, bob := shows(t, issue(t, admins, "alice")), shows(t, issue(t, admins, "bob"))
	ended := make(chan string, 10)
	a.Until(alice, func() { ended <- "alice" })
	a.Until(bob, func() { ended <- "bob" })
	a.Until(alice, func() { ended <- "a request that is over" })()
	if _, err := admins.Revoke("alice"); err != nil {
		t.Fatal(err)
	}
	if who := <-ended; who != "alice" {
		t.Errorf("%s ended", who)
	}
	a.Until(alice, func() { ended <- "late" }) // let in just before
	if who := <-ended; who != "late" {
		t.Errorf("%s ended", who)
	}
	if _, err := admins.Revoke("bob"); err != nil {
		t.Fatal(err)
	}
	if who := <-ended; who != "bob" {
		t.Errorf("%s ended", who)
	}
	if n := len(p.revoked.open); n != 0 {
		t.Errorf("%d requests are still remembered", n)
	}
}

// TestDamagedListOfRevoked checks that a hub does not start with a list that it cannot read, and one that runs keeps the one
// before.
func TestDamagedListOfRevoked(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	p := w.load(t, dir)
	admins, err := OpenAdmins(dir)
	if err != nil {
		t.Fatal(err)
	}
	admins.now = w.clock
	alice := shows(t, issue(t, admins, "alice"))
	if _, err := admins.Revoke("alice"); err != nil {
		t.Fatal(err)
	}
	if err := p.reload(); err != nil {
		t.Fatal(err)
	}
	if err := write(revokedFile, "key 12 alice\n")(dir); err != nil {
		t.Fatal(err)
	}
	if err := p.reload(); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, revokedFile)+", line 1") {
		t.Errorf("reload: %v", err)
	}
	if accepted(t, NewAuthenticator(p, objects{}), alice) {
		t.Error("a damaged list lets the revoked in")
	}
	if _, err := loadPKI(dir, nil, w.clock, w.interfaces); err == nil {
		t.Error("a hub starts with a list that it cannot read")
	}
}
