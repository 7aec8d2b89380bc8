package auth

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
)

// A renewal that fails is said when it fails, months before the certificate ends.
func TestFailedRenewalIsLogged(t *testing.T) {
	w := newWorld()
	dir := filepath.Join(t.TempDir(), "pki")
	p := w.load(t, dir)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p.LogTo(slog.New(slog.NewTextHandler(&log, nil)))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(leafLifetime - renewBefore/2)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(13 * time.Hour)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run gave up while certificates are good: %v", err)
		}
		if !strings.Contains(log.String(), "could not be renewed") {
			t.Errorf("the log says %q", log.String())
		}
	})
}

// TestNewAdminKeyWithoutCertificate checks that the administrator keeps key and certificate while none can be issued for a new key.
func TestNewAdminKeyWithoutCertificate(t *testing.T) {
	w := newWorld()
	dir := t.TempDir()
	p := w.load(t, dir)
	kubeconfig := func() string {
		t.Helper()
		text, err := p.Kubeconfig("https://hub:6443")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := kubeconfig()
	caKey := p.caKey
	if _, err := keyfile.Create(filepath.Join(dir, "admin.key")); err != nil { // by another process
		t.Fatal(err)
	}
	p.caKey = p.serverKey // signatures of it do not fit the CA
	if err := p.reload(); err == nil {
		t.Error("issued")
	}
	if kubeconfig() != before {
		t.Error("the administrator's credentials have changed")
	}
	p.caKey = caKey
	if err := p.reload(); err != nil {
		t.Fatal(err)
	}
	if kubeconfig() == before || !accepted(t, NewAuthenticator(p, objects{}), shows(t, []byte(kubeconfig()))) {
		t.Error("the new key has no certificate")
	}
}
