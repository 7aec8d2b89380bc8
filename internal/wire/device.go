package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ALPN is the protocol name of the link on the hub's one port.
const ALPN = "mqtt"

// DeviceCertificate makes a device's TLS certificate: self-signed, valid permanently (nobody looks at its dates), with the
// static key as its common name, so that a broker can compute the device's fingerprint from the certificate alone.
func DeviceCertificate(key ed25519.PrivateKey, static PublicKey) (tls.Certificate, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: base64.RawURLEncoding.EncodeToString(static[:]), Organization: []string{"petrel device"}},
		NotBefore:    time.Unix(0, 0).UTC(),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make device certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// DeviceOf returns the fingerprint of the device at the other end of a handshaken connection.
func DeviceOf(cs tls.ConnectionState) (fingerprint string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("no client certificate: not a Petrel device")
	}
	cert := cs.PeerCertificates[0]
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("client certificate has a %T key, not Ed25519: not a Petrel device", cert.PublicKey)
	}
	static, err := base64.RawURLEncoding.DecodeString(cert.Subject.CommonName)
	if err != nil || len(static) != len(PublicKey{}) {
		return "", errors.New("client certificate does not name a static key: not a Petrel device")
	}
	return Fingerprint(pub, PublicKey(static)), nil
}

// Pin is the SHA-256 of a server's public key (SubjectPublicKeyInfo). It stays when the certificate is renewed.
type Pin [sha256.Size]byte

// PinOf is a certificate's pin.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// ErrPin is a server that is not the pinned hub.
var ErrPin = errors.New("the server's key is not the hub's: another hub at this address, or somebody in between")

// PinnedTLS is the agent's side of TLS to its hub: it checks the pinned key and nothing else, above all no date.
func PinnedTLS(device tls.Certificate, pin Pin) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{device},
		NextProtos:         []string{ALPN},
		InsecureSkipVerify: true, // replaced by VerifyConnection: pins, not names and dates
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return ErrPin
			}
			got := PinOf(cs.PeerCertificates[0])
			if subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
				return ErrPin
			}
			return nil
		},
	}
}
