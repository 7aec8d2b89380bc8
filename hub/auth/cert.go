package auth

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	caYears      = 100
	leafLifetime = 365 * 24 * time.Hour
	// renewBefore is how long before its end a leaf is issued again: months, so that a hub which is switched on once a
	// quarter still renews in time.
	renewBefore = leafLifetime / 3
)

// issuedFrom is the notBefore of every certificate: a client whose clock is behind must still accept what we issue.
var issuedFrom = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)

func serial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func issueCA(key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          n,
		Subject:               pkix.Name{CommonName: "petrel-ca"},
		NotBefore:             issuedFrom,
		NotAfter:              sane(now).AddDate(caYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return sign(t, t, &key.PublicKey, key)
}

// leaf is what a server or client certificate should contain.
type leaf struct {
	subject pkix.Name
	usage   x509.ExtKeyUsage // server or client authentication
	names   []string
	ips     []net.IP
	// lifetime from now on; 0 means leafLifetime.
	lifetime time.Duration
}

func (l leaf) issue(ca *x509.Certificate, caKey *ecdsa.PrivateKey, pub *ecdsa.PublicKey, now time.Time) (*x509.Certificate, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: n,
		Subject:      l.subject,
		NotBefore:    issuedFrom,
		NotAfter:     sane(now).Add(cmp.Or(l.lifetime, leafLifetime)),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{l.usage},
		DNSNames:     l.names,
		IPAddresses:  l.ips,
	}
	return sign(t, ca, pub, caKey)
}

// served reports whether cert can go on being used for l.
func (l leaf) served(cert, ca *x509.Certificate, pub *ecdsa.PublicKey, now time.Time) bool {
	if cert == nil || cert.CheckSignatureFrom(ca) != nil || !pub.Equal(cert.PublicKey) || sane(now).Add(renewBefore).After(cert.NotAfter) {
		return false
	}
	for _, n := range l.names {
		if !slices.Contains(cert.DNSNames, n) {
			return false
		}
	}
	for _, ip := range l.ips {
		if !hasIP(cert, ip) {
			return false
		}
	}
	return true
}

func hasIP(cert *x509.Certificate, ip net.IP) bool {
	return slices.ContainsFunc(cert.IPAddresses, ip.Equal)
}

func sign(t, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate %q: %w", t.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// serverLeaf returns the leaf with all names of the hub: those that the operator configured, those that pods use, and every address
// that this machine has now. addrs is net.InterfaceAddrs outside of tests.
func serverLeaf(hosts []string, addrs func() ([]net.Addr, error)) leaf {
	l := leaf{subject: pkix.Name{CommonName: "petrel-hub"}, usage: x509.ExtKeyUsageServerAuth}
	l.names = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	l.ips = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if h, err := os.Hostname(); err == nil && validDNSName(h) {
		hosts = append(slices.Clone(hosts), h)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(strings.Trim(h, "[]")); ip != nil {
			l.addIP(ip)
		} else if h != "" && !slices.Contains(l.names, h) {
			l.names = append(l.names, h)
		}
	}
	// Without addresses the certificate is merely shorter; the next handshake tries again.
	now, _ := addrs()
	for _, a := range now {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() && !n.IP.IsMulticast() {
			l.addIP(n.IP)
		}
	}
	return l
}

func (l *leaf) addIP(ip net.IP) {
	if !slices.ContainsFunc(l.ips, ip.Equal) {
		l.ips = append(l.ips, ip)
	}
}

func validDNSName(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}
