package csr_test

import (
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"petrel.dev/petrel/hub/auth/csr"
	"petrel.dev/petrel/hub/auth/csr/csrtest"
)

const (
	digital  = certificatesv1.UsageDigitalSignature
	encipher = certificatesv1.UsageKeyEncipherment
	client   = certificatesv1.UsageClientAuth
	server   = certificatesv1.UsageServerAuth
)

type usages = []certificatesv1.KeyUsage

// TestCheck checks which requests each signer signs, and upstream's texts for the others.
func TestCheck(t *testing.T) {
	const anyone, kubelet, serving = certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName
	nodes := []string{"system:nodes"}
	dns := func(r *x509.CertificateRequest) { r.DNSNames = []string{"pi-1"} }
	ip := func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }
	mail := func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }
	uri := func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }
	both := func(a, b func(*x509.CertificateRequest)) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) { a(r); b(r) }
	}
	for _, c := range []struct {
		signer, name  string
		organizations []string
		change        func(*x509.CertificateRequest)
		usages        usages
		text          string // "": it is signed
	}{
		{anyone, "ada", []string{"ops"}, nil, usages{client}, ""},
		{anyone, "ada", nil, dns, usages{digital, encipher, client}, ""},
		{anyone, "ada", nil, nil, usages{digital}, "missing required usage for client certificate: client auth"},
		{anyone, "ada", nil, nil, usages{client, server}, "invalid usage for client certificate: server auth"},
		{kubelet, "system:node:pi-1", nodes, nil, usages{digital, client}, ""},
		{kubelet, "system:node:pi-1", nodes, nil, usages{client, encipher, digital}, ""},
		{kubelet, "system:node:pi-1", []string{"system:nodes", "x"}, nil, usages{digital, client}, "subject organization is not system:nodes"},
		{kubelet, "pi-1", nodes, nil, usages{digital, client}, "subject common name does not begin with system:node:"},
		{kubelet, "system:node:pi-1", nodes, dns, usages{digital, client}, "DNS subjectAltNames are not allowed"},
		{kubelet, "system:node:pi-1", nodes, ip, usages{digital, client}, "IP subjectAltNames are not allowed"},
		{kubelet, "system:node:pi-1", nodes, mail, usages{digital, client}, "Email subjectAltNames are not allowed"},
		{kubelet, "system:node:pi-1", nodes, uri, usages{digital, client}, "URI subjectAltNames are not allowed"},
		{kubelet, "system:node:pi-1", nodes, nil, usages{client}, "usages did not match [client auth digital signature key encipherment]"},
		{serving, "system:node:pi-1", nodes, dns, usages{digital, server}, ""},
		{serving, "system:node:pi-1", nodes, ip, usages{digital, encipher, server}, ""},
		{serving, "system:node:pi-1", nodes, nil, usages{digital, server}, "DNS or IP subjectAltName is required"},
		{serving, "system:node:pi-1", nodes, both(dns, uri), usages{digital, server}, "URI subjectAltNames are not allowed"},
		{serving, "system:node:pi-1", nodes, dns, usages{digital, client}, "usages did not match [digital signature key encipherment server auth]"},
		{serving, "pi-1", nodes, dns, usages{digital, server}, "subject common name does not begin with system:node:"},
	} {
		req, err := csr.Parse(csrtest.PEM(t, c.name, c.organizations, c.change))
		if err != nil {
			t.Fatal(err)
		}
		known, err := csr.Check(c.signer, req, c.usages)
		if !known || (c.text == "") != (err == nil) || err != nil && err.Error() != c.text {
			t.Errorf("%s %s %v: %v, %v, want %q", c.signer, c.name, c.usages, known, err, c.text)
		}
	}
	req, err := csr.Parse(csrtest.PEM(t, "ada", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if known, _ := csr.Check("example.com/mine", req, usages{client}); known {
		t.Error("the hub signs for others")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(csrtest.PEM(f, "ada", []string{"ops"}, nil))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if req, err := csr.Parse(text); err == nil {
			if _, err := csr.Check(certificatesv1.KubeletServingSignerName, req, usages{digital, server}); err != nil && strings.Contains(err.Error(), "\x00") {
				t.Error(err)
			}
		}
	})
}
