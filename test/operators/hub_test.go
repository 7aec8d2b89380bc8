package operators

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// hub is a running `petrel hub` with all its controllers, and no node.
type hub struct {
	t          *testing.T
	dir        string // data directory
	kubeconfig string // of the administrator
	config     *rest.Config
	client     kubernetes.Interface
}

// startHub starts a hub on loopback and waits until it is ready.
func startHub(t *testing.T) *hub {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	h := &hub{t: t, dir: t.TempDir()}
	h.kubeconfig = filepath.Join(h.dir, "admin.kubeconfig")
	h.start("hub", petrel, "hub", "--data-dir", h.dir, "--listen", address, "--advertise", "127.0.0.1")
	h.eventually("the hub is ready", func() error {
		_, err := h.tryKubectl("", "get", "--raw", "/readyz")
		return err
	})
	var err error
	if h.config, err = clientcmd.BuildConfigFromFlags("", h.kubeconfig); err != nil {
		t.Fatal(err)
	}
	if h.client, err = kubernetes.NewForConfig(h.config); err != nil {
		t.Fatal(err)
	}
	return h
}

// start runs a program until the test ends; its output is in the test's log when the test fails.
func (h *hub) start(name, path string, args ...string) {
	h.t.Helper()
	out := &output{}
	cmd := exec.Command(path, args...)
	cmd.Env = h.environ()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // ended by our signal
		kill.Stop()
		if h.t.Failed() {
			h.t.Logf("--- output of %s\n%s", name, out.tail(80))
		}
	})
}

// output collects what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) tail(lines int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := strings.Split(strings.TrimRight(o.b.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// environ is that of clients: their caches and configuration lie in the hub's directory.
func (h *hub) environ() []string {
	return append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HOME="+h.dir)
}

// try runs a client and returns what it prints; an error has both outputs in its text.
func (h *hub) try(stdin, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = h.environ()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(path), strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return out.String(), nil
}

func (h *hub) tryKubectl(stdin string, args ...string) (string, error) {
	return h.try(stdin, kubectl, args...)
}

// kubectl runs kubectl, which must succeed.
func (h *hub) kubectl(args ...string) string {
	h.t.Helper()
	return h.run(kubectl, args...)
}

// run runs a client, which must succeed.
func (h *hub) run(path string, args ...string) string {
	h.t.Helper()
	out, err := h.try("", path, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// apply applies a manifest on the server.
func (h *hub) apply(manifest string) {
	h.t.Helper()
	if _, err := h.tryKubectl(manifest, "apply", "--server-side", "-f", "-"); err != nil {
		h.t.Fatal(err)
	}
}

// is checks that a field of an object has a value.
func (h *hub) is(want, object, path string) error {
	got, err := h.tryKubectl("", "get", object, "-o", "jsonpath="+path)
	if err == nil && got != want {
		err = fmt.Errorf("%s of %s is %q, want %q", path, object, got, want)
	}
	return err
}

// must checks without waiting.
func (h *hub) must(want, object, path string) {
	h.t.Helper()
	if err := h.is(want, object, path); err != nil {
		h.t.Error(err)
	}
}

// eventually waits until f is content. The time is how long to hope, no promise of speed.
func (h *hub) eventually(what string, f func() error) {
	h.t.Helper()
	err := errors.New("not tried")
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	h.t.Fatalf("not in time: %s: %v", what, err)
}
