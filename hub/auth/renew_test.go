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
