// Package csr has the rules of the kubernetes.io signers: which certificate requests each of them signs. It is pure; the texts are
// upstream's, because they are shown in a request's conditions.
package csr

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
)

const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// Parse returns the request in PEM text.
func Parse(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// Check returns why a signer does not sign a request; known is false when the hub is not that signer.
func Check(signer string, req *x509.CertificateRequest, usages []certificatesv1.KeyUsage) (known bool, err error) {
	switch signer {
	case certificatesv1.KubeAPIServerClientSignerName:
		return true, checkClient(usages)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return true, CheckKubeletClient(req, usages)
	case certificatesv1.KubeletServingSignerName:
		return true, checkKubeletServing(req, usages)
	}
	return false, nil
}

func checkClient(usages []certificatesv1.KeyUsage) error {
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth:
		default:
			return fmt.Errorf("invalid usage for client certificate: %s", u)
		}
	}
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
		return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return nil
}

// CheckKubeletClient returns why a request is not one for a node's client certificate.
func CheckKubeletClient(req *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(req.Subject.Organization, []string{nodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case len(req.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(req.EmailAddresses) > 0:
		//lint:ignore ST1005 upstream's text
		return errors.New("Email subjectAltNames are not allowed")
	case len(req.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(req.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(req.Subject.CommonName, nodePrefix):
		//lint:ignore ST1005 upstream's text
		return errors.New("subject common name does not begin with system:node:")
	}
	return checkUsages(usages, certificatesv1.UsageClientAuth)
}

func checkKubeletServing(req *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(req.Subject.Organization, []string{nodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case len(req.DNSNames) == 0 && len(req.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(req.EmailAddresses) > 0:
		//lint:ignore ST1005 upstream's text
		return errors.New("Email subjectAltNames are not allowed")
	case len(req.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	if err := checkUsages(usages, certificatesv1.UsageServerAuth); err != nil {
		return err
	}
	if !strings.HasPrefix(req.Subject.CommonName, nodePrefix) {
		//lint:ignore ST1005 upstream's text
		return errors.New("subject common name does not begin with system:node:")
	}
	return nil
}

// checkUsages wants exactly digital signature and auth; key encipherment, which RSA keys need, may be there too.
func checkUsages(usages []certificatesv1.KeyUsage, auth certificatesv1.KeyUsage) error {
	set := slices.Compact(slices.Sorted(slices.Values(usages)))
	short := []certificatesv1.KeyUsage{auth, certificatesv1.UsageDigitalSignature}
	long := append([]certificatesv1.KeyUsage{certificatesv1.UsageKeyEncipherment}, short...)
	slices.Sort(short)
	slices.Sort(long)
	if slices.Equal(set, short) || slices.Equal(set, long) {
		return nil
	}
	return fmt.Errorf("usages did not match %v", long)
}
