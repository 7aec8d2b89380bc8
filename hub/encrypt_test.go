package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// newKey puts a new key before those in file, and returns its line.
func newKey(t *testing.T, file string) string {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	line := base64.StdEncoding.EncodeToString(key) + "\n"
	if err := os.WriteFile(file, append([]byte(line), old...), 0o600); err != nil {
		t.Fatal(err)
	}
	return line
}

// withHub runs a hub on dir while f does.
func withHub(t *testing.T, dir, keyFile string, f func(h *Hub, c kubernetes.Interface)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h, err := New(ctx, Config{
		DataDir: dir, EncryptionKeyFile: keyFile, Listen: "127.0.0.1:0", Backups: -1, Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("hub: %v", err)
		}
	}()
	h.eventually(t, "/readyz", 200, "ok")
	config, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := c.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err == nil {
			break
		} else if time.Since(began) > time.Minute {
			t.Fatal(err)
		}
	}
	f(h, c)
}

// holds reports whether a file of the store, or of its backups, has text in it.
func holds(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(filepath.Dir(path)) == "pki" {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEncryptionAtRest checks that Secrets are read and watched as ever, and lie on the disk as cipher text; a key can be
// replaced; a hub without the right key does not start, and names the one it needs.
func TestEncryptionAtRest(t *testing.T) {
	dir, keyFile := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	newKey(t, keyFile)
	const clear, later = "clear-before-anything", "encrypted-from-the-start"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	secret := func(name, value string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"note": value}}, StringData: map[string]string{"k": value}}
	}
	read := func(c kubernetes.Interface, name, want string) *corev1.Secret {
		t.Helper()
		s, err := c.CoreV1().Secrets("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || string(s.Data["k"]) != want {
			t.Fatalf("read %s: %v, %v", name, s, err)
		}
		return s
	}
	withHub(t, dir, "", func(_ *Hub, c kubernetes.Interface) {
		if _, err := c.CoreV1().Secrets("default").Create(t.Context(), secret("old", clear), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if !holds(t, dir, b64(clear)) {
		t.Fatal("this test looks for the wrong text")
	}
	withHub(t, dir, keyFile, func(h *Hub, c kubernetes.Interface) {
		w, err := c.CoreV1().Secrets("default").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		made, err := c.CoreV1().Secrets("default").Create(t.Context(), secret("new", later), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s := read(c, "new", later); s.ResourceVersion != made.ResourceVersion || s.ResourceVersion == "" {
			t.Errorf("created at %q, read at %q", made.ResourceVersion, s.ResourceVersion)
		}
		read(c, "old", clear)
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*corev1.Secret); ok && s.Name == "new" {
				if string(s.Data["k"]) != later || s.ResourceVersion != made.ResourceVersion {
					t.Errorf("watched: %v", s)
				}
				break
			}
		}
		// The one from before is encrypted in the background.
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			n, err := h.sealed.Reseal(t.Context(), h.encodeSecret)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatal("it goes on for long")
			}
		}
	})
	if holds(t, dir, b64(later)) || holds(t, dir, later) {
		t.Error("a Secret is on the disk in clear")
	}
	start := func(keyFile string) error {
		h, err := New(t.Context(), Config{
			DataDir: dir, EncryptionKeyFile: keyFile, Listen: "127.0.0.1:0", Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
			ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		})
		if err == nil {
			h.db.Close()
			h.listener.Close()
		}
		return err
	}
	other := filepath.Join(t.TempDir(), "keys")
	newKey(t, other)
	for file, want := range map[string]string{"": "--encryption-key-file", other: "add it there", other + "x": "/dev/urandom"} {
		if err := start(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with the keys of %q: %v", file, err)
		}
	}
	first := newKey(t, keyFile)
	withHub(t, dir, keyFile, func(h *Hub, c kubernetes.Interface) {
		read(c, "old", clear)
		read(c, "new", later)
		if _, err := h.sealed.Reseal(t.Context(), h.encodeSecret); err != nil {
			t.Fatal(err)
		}
	})
	if err := os.WriteFile(keyFile, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	withHub(t, dir, keyFile, func(_ *Hub, c kubernetes.Interface) {
		read(c, "old", clear)
		read(c, "new", later)
	})
}
