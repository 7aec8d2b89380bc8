package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/internal/porttest"
)

var petrel string

func TestMain(m *testing.M) {
	if kubeconfig := os.Getenv(greedyEnv); kubeconfig != "" {
		os.Exit(beGreedy(kubeconfig))
	}
	code := func() int {
		petrel = os.Getenv("PETREL_BIN")
		if petrel != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "petrel-bench-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		petrel = filepath.Join(dir, "petrel")
		build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", petrel, "../../cmd/petrel")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build petrel: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}()
	os.Exit(code)
}

// hub is a running hub process.
type hub struct {
	tb     testing.TB
	dir    string
	listen string
	cmd    *exec.Cmd
	out    bytes.Buffer
	config *rest.Config
	// startup is how long the newest start took until /readyz was good.
	startup time.Duration
}

// startHub starts a hub with an empty data directory on loopback, and waits for its readiness.
func startHub(tb testing.TB) *hub {
	tb.Helper()
	h := &hub{tb: tb, dir: tb.TempDir(), listen: porttest.Address()}
	h.start()
	tb.Cleanup(h.stop)
	return h
}

// start starts the process and returns when /readyz has said so.
func (h *hub) start() {
	h.tb.Helper()
	host, _, _ := net.SplitHostPort(h.listen)
	h.cmd = exec.Command(petrel, "hub", "--data-dir", h.dir, "--listen", h.listen, "--advertise", host)
	h.cmd.Stdout, h.cmd.Stderr = &h.out, &h.out
	began := time.Now()
	if err := h.cmd.Start(); err != nil {
		h.tb.Fatal(err)
	}
	deadline := began.Add(20 * time.Second)
	for {
		err := h.ready()
		if err == nil {
			h.startup = time.Since(began)
			return
		}
		if time.Now().After(deadline) {
			h.stop()
			h.tb.Fatalf("hub is not ready: %v\n%s", err, h.out.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (h *hub) ready() error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(h.dir, "admin.kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS = -1 // the client's own brake is not what is measured
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return err
	}
	h.config = config
	return nil
}

func (h *hub) stop() {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	if err := h.cmd.Wait(); err != nil {
		h.tb.Errorf("hub: %v\n%s", err, h.out.String())
	}
	h.cmd = nil
}

// client is a client-go client as programs have it, with a connection of its own.
func (h *hub) client() *kubernetes.Clientset {
	h.tb.Helper()
	c, err := kubernetes.NewForConfig(rest.CopyConfig(h.config))
	if err != nil {
		h.tb.Fatal(err)
	}
	return c
}

// written are the bytes that the hub has caused to be written to storage.
func (h *hub) written() int64 { return h.number("io", "write_bytes:") }

// number reads one line of a file of /proc/PID.
func (h *hub) number(file, key string) int64 {
	h.tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.cmd.Process.Pid, file))
	if err != nil {
		h.tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				h.tb.Fatal(err)
			}
			return n
		}
	}
	h.tb.Fatalf("no %q in /proc/PID/%s", key, file)
	return 0
}

// cpu is the processor time that the hub has used.
func (h *hub) cpu() time.Duration {
	h.tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.cmd.Process.Pid))
	if err != nil {
		h.tb.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on every Linux architecture that Go knows
}
