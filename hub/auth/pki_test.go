package auth

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// world is a clock and a set of network addresses that a test turns.
type world struct {
	now   time.Time
	addrs []string
}

func (w *world) clock() time.Time { return w.now }

func (w *world) interfaces() ([]net.Addr, error) {
	var out []net.Addr
	for _, a := range w.addrs {
		out = append(out, &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(24, 32)})
	}
	return out, nil
}

func newWorld() *world {
	return &world{now: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), addrs: []string{"192.0.2.10"}}
}

func (w *world) load(t *testing.T, dir string, hosts ...string) *PKI {
	t.Helper()
	p, err := loadPKI(dir, hosts, w.clock, w.interfaces)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPKISurvivesRestart(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	a := w.load(t, dir, "hub.example")
	before := readDir(t, dir)
	b := w.load(t, dir, "hub.example")
	if a.ServerSPKI() != b.ServerSPKI() {
		t.Error("the server's key changed with a restart")
	}
	for name, data := range readDir(t, dir) {
		if !bytes.Equal(before[name], data) {
			t.Errorf("%s was written again by a restart", name)
		}
	}
}

func TestServerCertificateNames(t *testing.T) {
	p := newWorld().load(t, t.TempDir(), "hub.example", "203.0.113.7", "10.43.0.1")
	for _, name := range []string{"hub.example", "localhost", "kubernetes.default.svc", "127.0.0.1", "203.0.113.7", "10.43.0.1", "192.0.2.10", "::1"} {
		if err := p.server.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if p.server.Leaf.VerifyHostname("elsewhere.example") == nil {
		t.Error("the certificate is good for any name")
	}
}

func TestServerCertificateFollowsNewName(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	old := w.load(t, dir)
	p := w.load(t, dir, "new.example")
	if err := p.server.Leaf.VerifyHostname("new.example"); err != nil {
		t.Error(err)
	}
	if old.ServerSPKI() != p.ServerSPKI() {
		t.Error("a new name changed the key that agents pin")
	}
}

// addressed is a connection that came in on an address.
type addressed struct {
	net.Conn
	at string
}

func (a addressed) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.at), Port: 6443} }

func TestCertificateFollowsChangedAddress(t *testing.T) {
	w := newWorld()
	p := w.load(t, t.TempDir())
	w.addrs = []string{"198.51.100.4"}
	cert, err := p.certificateFor(&tls.ClientHelloInfo{Conn: addressed{at: "198.51.100.4"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.Leaf.VerifyHostname("198.51.100.4"); err != nil {
		t.Error(err)
	}
	// An address that is not the machine's is not certified, although the connection seems to come to it.
	cert, err = p.certificateFor(&tls.ClientHelloInfo{Conn: addressed{at: "203.0.113.99"}})
	if err != nil {
		t.Fatal(err)
	}
	if cert.Leaf.VerifyHostname("203.0.113.99") == nil {
		t.Error("a foreign address was certified")
	}
}

func TestCertificatesRenewWhileRunning(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	p := w.load(t, dir)
	path := filepath.Join(t.TempDir(), "admin.kubeconfig")
	if err := p.WriteKubeconfig(path, "https://127.0.0.1:6443"); err != nil {
		t.Fatal(err)
	}
	first, spki, config := p.server.Leaf, p.ServerSPKI(), read(t, path)

	w.now = w.now.Add(leafLifetime - renewBefore + time.Hour)
	cert, err := p.certificateFor(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if !cert.Leaf.NotAfter.After(first.NotAfter) {
		t.Error("the handshake did not renew the server's certificate")
	}
	if p.ServerSPKI() != spki {
		t.Error("renewal changed the key that agents pin")
	}
	if bytes.Equal(config, read(t, path)) {
		t.Error("the kubeconfig still holds the old administrator's certificate")
	}
	if p.ca.NotAfter.Before(w.now.AddDate(90, 0, 0)) {
		t.Errorf("the CA ends at %s", p.ca.NotAfter)
	}
}

// A card that can no longer be written to does not take the hub down.
func TestRenewsWithoutDisk(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	p := w.load(t, dir)
	first := p.server.Leaf
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(leafLifetime + time.Hour)
	cert, err := p.certificateFor(&tls.ClientHelloInfo{})
	if err != nil || !cert.Leaf.NotAfter.After(first.NotAfter) {
		t.Errorf("%v, the certificate ends at %s", err, cert.Leaf.NotAfter)
	}
}

func TestBoardWithoutClock(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	right := w.now
	w.now = time.Date(1970, 1, 1, 0, 0, 30, 0, time.UTC)
	p := w.load(t, dir)
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	// A client that knows the time accepts what was issued in 1970.
	if _, err := p.server.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: sane(time.Time{}).AddDate(0, 1, 0)}); err != nil {
		t.Error(err)
	}
	w.now = right
	cert, err := p.certificateFor(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: right}); err != nil {
		t.Error(err)
	}
}

func TestDamagedFiles(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(dir string) error
		says   []string // nil: it heals by itself
	}{
		{"empty CA key", truncate("ca.key"), []string{"ca.key", "empty", "restore"}},
		{"CA key gone", remove("ca.key"), []string{"ca.crt", "key is gone", "restore"}},
		{"server key of garbage", write("server.key", "garbage"), []string{"server.key", "no PEM block", "restore"}},
		{"server key gone", remove("server.key"), []string{"server.crt", "key is gone"}},
		{"half a token key", half("sa.key"), []string{"sa.key", "damaged"}},
		{"CA certificate gone", remove("ca.crt"), nil},
		{"empty CA certificate", truncate("ca.crt"), nil},
		{"server certificate cut", half("server.crt"), nil},
		{"admin certificate gone", remove("admin.crt"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, w := t.TempDir(), newWorld()
			old := w.load(t, dir)
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			p, err := loadPKI(dir, nil, w.clock, w.interfaces)
			if tt.says == nil {
				if err != nil {
					t.Fatal(err)
				}
				// A client that trusted the old CA trusts the new certificates.
				roots := x509.NewCertPool()
				roots.AddCert(old.ca)
				if _, err := p.server.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: w.now}); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

func TestKubeconfig(t *testing.T) {
	p := newWorld().load(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "admin.kubeconfig")
	if err := p.WriteKubeconfig(path, "https://hub.example:6443"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode is %o", st.Mode().Perm())
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "https://hub.example:6443" || !bytes.Equal(c.CAData, p.CA()) {
		t.Errorf("host %s", c.Host)
	}
	if _, err := tls.X509KeyPair(c.CertData, c.KeyData); err != nil {
		t.Error(err)
	}
}

func truncate(f string) func(string) error {
	return func(dir string) error { return os.Truncate(filepath.Join(dir, f), 0) }
}

func remove(f string) func(string) error {
	return func(dir string) error { return os.Remove(filepath.Join(dir, f)) }
}

func write(f, s string) func(string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, f), []byte(s), 0o600) }
}

func half(f string) func(string) error {
	return func(dir string) error {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil {
			return err
		}
		return os.Truncate(filepath.Join(dir, f), st.Size()/2)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readDir(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range entries {
		out[e.Name()] = read(t, filepath.Join(dir, e.Name()))
	}
	return out
}
