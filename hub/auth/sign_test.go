package auth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"petrel.dev/petrel/hub/auth/csr"
	"petrel.dev/petrel/hub/auth/csr/csrtest"
)

// TestSignRequest checks that a signed request opens the API for its subject, for as long as it was signed for, and can be revoked.
func TestSignRequest(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	p := w.load(t, dir)
	req, err := csr.Parse(csrtest.PEM(t, "ada", []string{"ops"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(life time.Duration, usages ...certificatesv1.KeyUsage) *x509.Certificate {
		t.Helper()
		text, err := p.SignRequest(req, usages, life)
		if err != nil {
			t.Fatal(err)
		}
		block, rest := pem.Decode(text)
		if block == nil || len(rest) > 0 {
			t.Fatalf("signed: %s", text)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	cert := sign(time.Hour, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth)
	if cert.IsCA || !cert.NotBefore.Equal(w.now.Add(-5*time.Minute)) || !cert.NotAfter.Equal(w.now.Add(time.Hour)) || cert.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("%s to %s, usage %v", cert.NotBefore, cert.NotAfter, cert.KeyUsage)
	}
	if long := sign(10*leafLifetime, certificatesv1.UsageServerAuth); !long.NotAfter.Equal(w.now.Add(leafLifetime - 5*time.Minute)) {
		t.Errorf("until %s", long.NotAfter)
	}
	a := NewAuthenticator(p, objects{})
	r := httptest.NewRequest("GET", "/api", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	if u, ok, err := a.Authenticate(r); !ok || u.Name != "ada" || !slices.Equal(u.Groups, []string{"ops", "system:authenticated"}) {
		t.Errorf("%+v, %v", u, err)
	}
	admins, err := OpenAdmins(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admins.Revoke(cert.SerialNumber.Text(16)); err != nil {
		t.Fatal(err)
	}
	if err := p.reload(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := a.Authenticate(r); ok || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("revoked: %v", err)
	}
	if _, err := p.SignRequest(req, []certificatesv1.KeyUsage{certificatesv1.UsageCertSign}, time.Hour); err == nil {
		t.Error("signed a CA")
	}
	req.Signature[10] ^= 1
	if _, err := p.SignRequest(req, nil, time.Hour); err == nil {
		t.Error("signed without proof of the key")
	}
}
