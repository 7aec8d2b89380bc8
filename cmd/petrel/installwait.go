//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// hubPatience is how long a hub may take to answer after it was started: a slow card, a large store.
const hubPatience = time.Minute

// waitForHub waits until the hub of dataDir answers at listen, so that what is typed next works.
func waitForHub(ctx context.Context, dataDir, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, hubPatience)
	defer cancel()
	url := "https://" + net.JoinHostPort(host, port) + "/readyz"
	for {
		if err = answers(ctx, url, filepath.Join(dataDir, "pki", "ca.crt")); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("petrel-hub was started, and does not answer: %w; its log says why: journalctl -u petrel-hub, or /var/log/petrel-hub.log", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// answers returns why a hub with this CA does not answer that it is ready, or nil.
func answers(ctx context.Context, url, ca string) error {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New(ca + " has no certificate")
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("it is not ready: " + resp.Status)
	}
	return nil
}
