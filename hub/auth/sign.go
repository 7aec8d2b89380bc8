package auth

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

const (
	// signBackdate is by how much a certificate begins earlier than now, for clients whose clock is behind; signShort is the lifetime
	// below which it is not taken from the end. Upstream's own.
	signBackdate = 5 * time.Minute
	signShort    = 8 * time.Hour
)

// SignRequest signs a certificate request by the hub's CA, as PEM: with the request's subject and alternative names, and the usages
// that the signer has allowed. A lifetime beyond a year becomes a year.
func (p *PKI) SignRequest(req *x509.CertificateRequest, usages []certificatesv1.KeyUsage, lifetime time.Duration) ([]byte, error) {
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("unable to verify certificate request signature: %w", err)
	}
	n, err := serial()
	if err != nil {
		return nil, err
	}
	lifetime = min(lifetime, leafLifetime)
	now := sane(p.now())
	t := &x509.Certificate{
		SerialNumber: n, Subject: req.Subject,
		DNSNames: req.DNSNames, IPAddresses: req.IPAddresses, EmailAddresses: req.EmailAddresses, URIs: req.URIs,
		NotBefore: now.Add(-signBackdate), NotAfter: now.Add(lifetime - signBackdate),
		BasicConstraintsValid: true,
	}
	if lifetime < signShort {
		t.NotAfter = now.Add(lifetime)
	}
	if err := setUsages(t, usages); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, p.ca, req.PublicKey, p.caKey)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %q: %w", req.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func setUsages(t *x509.Certificate, usages []certificatesv1.KeyUsage) error {
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature:
			t.KeyUsage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			t.KeyUsage |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		case certificatesv1.UsageServerAuth:
			t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		default:
			return fmt.Errorf("sign certificate: usage %q is of none of the hub's signers", u)
		}
	}
	return nil
}
