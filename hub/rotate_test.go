package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sealed"
)

const rotatedSecrets = 5

func keysOf(t *testing.T, file string) *seal.Keys {
	t.Helper()
	k, err := seal.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// until waits until f is true, for what another goroutine does on the disk.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func makeSecrets(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	for i := range rotatedSecrets {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)}, StringData: map[string]string{"k": fmt.Sprint("v", i)}}
		if _, err := c.CoreV1().Secrets("default").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func readSecrets(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	for i := range rotatedSecrets {
		s, err := c.CoreV1().Secrets("default").Get(t.Context(), fmt.Sprint("s", i), metav1.GetOptions{})
		if err != nil || string(s.Data["k"]) != fmt.Sprint("v", i) {
			t.Fatalf("s%d: %v, %v", i, s, err)
		}
	}
}

// TestRotateKeyWhileRunning checks that a new first key is taken up while Secrets are read and written, and that the older one leaves the
// file, but not before the backups that need it have gone.
func TestRotateKeyWhileRunning(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	newKey(t, file)
	first := keysOf(t, file).First()
	backup := filepath.Join(dir, "backup", "old.db")
	withHub(t, dir, file, func(h *Hub, c kubernetes.Interface) {
		makeSecrets(t, c)
		if err := errors.Join(os.MkdirAll(filepath.Dir(backup), 0o700), os.WriteFile(backup, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "busy"}, StringData: map[string]string{"n": fmt.Sprint(n)}}
				_, err := c.CoreV1().Secrets("default").Create(ctx, s, metav1.CreateOptions{})
				if err == nil {
					err = c.CoreV1().Secrets("default").Delete(ctx, "busy", metav1.DeleteOptions{})
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
		second, err := seal.AddKey(file)
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the mark", func() bool { _, ok, _ := seal.SealedSince(file); return ok })
		readSecrets(t, c)
		if k := keysOf(t, file); k.Len() != 2 || !k.Has(first) || k.First() != second {
			t.Errorf("with an old backup the file has %d keys", k.Len())
		}
		if err := os.Remove(backup); err != nil {
			t.Fatal(err)
		}
		third, err := seal.AddKey(file) // also what makes the hub look
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the older keys' end", func() bool { k := keysOf(t, file); return k.Len() == 1 && k.First() == third })
		stop()
		wg.Wait()
		readSecrets(t, c)
	})
	withHub(t, dir, file, func(_ *Hub, c kubernetes.Interface) { readSecrets(t, c) })
}

// TestBackupBefore has a directory with one file: whether an older key is kept for it.
func TestBackupBefore(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name string
		at   time.Time
		want bool
	}{
		{"hub-20260102T030405Z-7-abcdefgh.db", now.Add(-time.Second), true},
		{"hub-20260102T030405Z-7-abcdefgh.db", now.Add(time.Second), false},
		{"hub-20260102T030405Z-7-abcdefgh.db.part", now.Add(time.Second), true}, // its contents may be older than its end
	} {
		h := &Hub{cfg: Config{DataDir: t.TempDir()}}
		if got, err := h.backupBefore(now); got != "" || err != nil {
			t.Fatalf("without a directory: %q, %v", got, err)
		}
		path := filepath.Join(h.backupDir(), test.name)
		if err := errors.Join(os.Mkdir(h.backupDir(), 0o700), os.WriteFile(path, nil, 0o600), os.Chtimes(path, test.at, test.at)); err != nil {
			t.Fatal(err)
		}
		if got, err := h.backupBefore(now); (got == path) != test.want || err != nil {
			t.Errorf("%s, %s: %q, %v", test.name, test.at.Sub(now), got, err)
		}
	}
}

// copied returns a copy of a data directory and its key file, as a power cut would leave them.
func copied(t *testing.T, dir, file string) (string, string) {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "data"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "keys"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "data"), filepath.Join(to, "keys")
}

// TestRotationKilled stops a rotation after each of its steps, and in the middle of the long one, and checks that a hub that starts then has
// all Secrets and ends the rotation.
func TestRotationKilled(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	newKey(t, file)
	withHub(t, dir, file, func(_ *Hub, c kubernetes.Interface) { makeSecrets(t, c) })
	second, err := seal.AddKey(file)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]func(t *testing.T, dir, file string){
		"key added":    func(*testing.T, string, string) {},
		"half written": func(t *testing.T, dir, file string) { resealSome(t, dir, file, 2) },
		"all written":  func(t *testing.T, dir, file string) { resealSome(t, dir, file, 1000) },
		"marked":       func(t *testing.T, dir, file string) { resealSome(t, dir, file, 1000); mark(t, file, second) },
		"older dropped": func(t *testing.T, dir, file string) {
			resealSome(t, dir, file, 1000)
			mark(t, file, second)
			drop(t, file, second)
		},
	}
	for name, reach := range states {
		t.Run(name, func(t *testing.T) {
			dir, file := copied(t, dir, file)
			reach(t, dir, file)
			withHub(t, dir, file, func(_ *Hub, c kubernetes.Interface) {
				readSecrets(t, c)
				until(t, "the rotation's end", func() bool { k := keysOf(t, file); return k.Len() == 1 && k.First() == second })
				readSecrets(t, c)
			})
		})
	}
}

func mark(t *testing.T, file string, first seal.KeyID) {
	t.Helper()
	if err := seal.MarkSealed(file, first, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func drop(t *testing.T, file string, first seal.KeyID) {
	t.Helper()
	if err := seal.DropOld(file, first); err != nil {
		t.Fatal(err)
	}
}

// resealSome encrypts n Secrets of a data directory again, then fails as a power cut would.
func resealSome(t *testing.T, dir, file string, n int) {
	t.Helper()
	h, err := New(t.Context(), Config{
		DataDir: dir, EncryptionKeyFile: file, Listen: "127.0.0.1:0", Backups: -1, Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.listener.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.db.Run(ctx) }()
	cut := errors.New("power cut")
	_, err = h.sealed.Reseal(ctx, func(key string, value []byte) ([]byte, int, error) {
		if n--; n < 0 {
			return nil, 0, cut
		}
		return h.encodeSecret(key, value)
	})
	if err != nil && !errors.Is(err, cut) {
		t.Error(err)
	}
	stop()
	<-done
	if err := h.db.Close(); err != nil {
		t.Error(err)
	}
}

// TestKeyInDataDirectory checks that the hub makes a key where it was asked to, and does not make another one when that is lost.
func TestKeyInDataDirectory(t *testing.T) {
	dir := t.TempDir()
	start := func() (*Hub, error) {
		return New(t.Context(), Config{
			DataDir: dir, EncryptSecrets: true, Listen: "127.0.0.1:0", Backups: -1, Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
			ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		})
	}
	end := func(h *Hub) {
		h.listener.Close()
		h.db.Close()
	}
	h, err := start()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "secrets.key")
	first := keysOf(t, file).First()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.db.Run(ctx) }()
	k, _ := h.kinds.Lookup(kube.Secret)
	obj := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}}
	value, at, err := k.Codec.Encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.db.Commit(ctx, sqlstore.Op{Key: resource.Key(k, "default", "s"), Value: value, RevAt: at, If: sqlstore.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	stop()
	<-done
	end(h)
	if h, err = start(); err != nil || keysOf(t, file).First() != first {
		t.Fatalf("another key: %v", err)
	}
	end(h)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	locked := (*sealed.LockedError)(nil)
	if h, err = start(); !errors.As(err, &locked) {
		t.Errorf("started with the key gone: %v", err)
		end(h)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a new key hides that the old one is lost")
	}
}
