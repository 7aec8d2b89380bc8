package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"petrel.dev/petrel/hub/auth/keyfile"
)

// WriteKubeconfig writes path (mode 0600): the administrator's access to server ("https://HOST:PORT"), with CA,
// certificate and key. It is written again when the certificate is renewed.
func (p *PKI) WriteKubeconfig(path, server string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kubeconfigs[path] = server
	return p.writeKubeconfig(path, server)
}

func (p *PKI) writeKubeconfig(path, server string) error {
	data, err := p.kubeconfig(server)
	if err != nil {
		return err
	}
	// Nothing is written when nothing changed: a start must not cost the card a write.
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return os.Chmod(path, 0o600)
	}
	return keyfile.Write(path, data, 0o600)
}

// Kubeconfig returns the administrator's kubeconfig for server.
func (p *PKI) Kubeconfig(server string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kubeconfig(server)
}

func (p *PKI) kubeconfig(server string) ([]byte, error) {
	return kubeconfig(server, AdminName, p.ca, p.admin, p.adminKey)
}

// kubeconfig is the text of a kubeconfig for one user of one server, who shows a certificate.
func kubeconfig(server, user string, ca, cert *x509.Certificate, private *ecdsa.PrivateKey) ([]byte, error) {
	key, err := keyfile.PEM(private)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return kubeconfigOf(server, user, ca, fmt.Sprintf("client-certificate-data: %s\n    client-key-data: %s", b64(keyfile.CertPEM(cert)), b64(key))), nil
}

// TokenKubeconfig returns a kubeconfig for a user who shows a token.
func (a *Admins) TokenKubeconfig(server, user, token string) ([]byte, error) {
	ca := keyfile.ReadCert(filepath.Join(a.dir, "ca.crt"))
	if ca == nil {
		return nil, fmt.Errorf("kubeconfig: %s cannot be read", filepath.Join(a.dir, "ca.crt"))
	}
	quoted, err := json.Marshal(user) // a name may have any characters; JSON strings are YAML
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return kubeconfigOf(server, string(quoted), ca, "token: "+token), nil
}

// kubeconfigOf is the text of a kubeconfig; user and credentials are YAML.
func kubeconfigOf(server, user string, ca *x509.Certificate, credentials string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: petrel
  cluster:
    server: %[1]s
    certificate-authority-data: %[2]s
users:
- name: %[3]s
  user:
    %[4]s
contexts:
- name: petrel
  context:
    cluster: petrel
    user: %[3]s
current-context: petrel
`, server, base64.StdEncoding.EncodeToString(keyfile.CertPEM(ca)), user, credentials)
}
