// Package keyfile reads and writes the files of the hub's keys and certificates: ECDSA P-256, PEM. A key that is damaged is an error that
// names the file; a certificate that is damaged is the same as none, because it is issued again from its key.
package keyfile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"petrel.dev/petrel/internal/durable"
)

// Write does what durable.WriteFile does; its error has the file's final name.
func Write(path string, data []byte, mode fs.FileMode) error {
	if err := durable.WriteFile(path, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Read reads a P-256 key, or makes it when the file does not exist and mayCreate returns nil: nothing depends on an older one.
func Read(path string, mayCreate func() error) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mayCreate(); err != nil {
			return nil, err
		}
		return Create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	damaged := func(why string) error {
		return fmt.Errorf("key %s is damaged (%s): restore it from a backup, or remove the directory %s to begin with a new identity "+
			"(every kubeconfig and every agent will have to join again)", path, why, filepath.Dir(path))
	}
	if len(data) == 0 {
		return nil, damaged("it is empty")
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, damaged("it holds no PEM block")
	}
	if block.Type == "EC PRIVATE KEY" {
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, damaged(err.Error())
		}
		return key, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, damaged(err.Error())
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, damaged("it is not an ECDSA P-256 key")
	}
	return key, nil
}

func Create(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	data, err := PEM(key)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	return key, Write(path, data, 0o600)
}

func PEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func CertPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// ReadCert reads a certificate; nil when there is none or it cannot be used: it will be issued again.
func ReadCert(path string) *x509.Certificate {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}
