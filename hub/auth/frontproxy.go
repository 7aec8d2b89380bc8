package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"sync"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
)

// FrontProxyName is the name by which aggregated API servers know the hub. It is the only one that their configuration allows.
const FrontProxyName = "front-proxy-client"

// FrontProxy is who the hub is to aggregated API servers: with its certificate, it may name the user of a request in headers. Its CA
// is not the clients', which signs names that others choose.
type FrontProxy struct {
	caKey *ecdsa.PrivateKey
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey // of this process only

	mu   sync.Mutex
	cert *x509.Certificate // nil until it is needed; guarded by mu
}

// FrontProxy reads the CA of the front proxy from the directory of keys, or makes it.
func (p *PKI) FrontProxy() (*FrontProxy, error) {
	f := &FrontProxy{}
	var err error
	if f.caKey, err = keyfile.Read(p.path("front-proxy-ca.key"), p.nothingDependsOn("front-proxy-ca.crt")); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	if f.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	f.ca = keyfile.ReadCert(p.path("front-proxy-ca.crt"))
	if f.ca != nil && f.caKey.PublicKey.Equal(f.ca.PublicKey) {
		return f, nil
	}
	if f.ca, err = issueCA(f.caKey, p.now()); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return f, keyfile.Write(p.path("front-proxy-ca.crt"), keyfile.CertPEM(f.ca), 0o644)
}

// CA returns the certificate by which aggregated API servers know the hub, as PEM.
func (f *FrontProxy) CA() []byte { return keyfile.CertPEM(f.ca) }

// Certificate returns the hub's certificate, issued again when it nears its end.
func (f *FrontProxy) Certificate() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := leaf{subject: pkix.Name{CommonName: FrontProxyName}, usage: x509.ExtKeyUsageClientAuth}
	if now := time.Now(); !l.served(f.cert, f.ca, &f.key.PublicKey, now) {
		cert, err := l.issue(f.ca, f.caKey, &f.key.PublicKey, now)
		if err != nil {
			return nil, err
		}
		f.cert = cert
	}
	return &tls.Certificate{Certificate: [][]byte{f.cert.Raw}, PrivateKey: f.key, Leaf: f.cert}, nil
}
