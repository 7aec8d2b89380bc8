package hollow

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
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/internal/porttest"
)

var petrel string

func TestMain(m *testing.M) {
	code := func() int {
		if petrel = os.Getenv("PETREL_BIN"); petrel != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "petrel-hollow-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		petrel = filepath.Join(dir, "petrel")
		build := exec.Command("go", "build", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", petrel, "../../cmd/petrel")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build petrel: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}()
	os.Exit(code)
}

// hub is a hub process on loopback.
type hub struct {
	t      *testing.T
	dir    string
	listen string
	cmd    *exec.Cmd
	out    bytes.Buffer
	client *kubernetes.Clientset
}

func startHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{t: t, dir: t.TempDir(), listen: porttest.Address()}
	h.start()
	t.Cleanup(h.kill)
	return h
}

// start returns when the hub says that it is ready.
func (h *hub) start() {
	h.t.Helper()
	// Room for 4,096 nodes: each has 254 pod addresses.
	host, _, _ := net.SplitHostPort(h.listen)
	h.cmd = exec.Command(petrel, "hub", "--data-dir", h.dir, "--listen", h.listen, "--advertise", host,
		"--cluster-cidr", "10.48.0.0/12", "--service-cidr", "10.43.0.0/16", "--log-level", "warn")
	h.cmd.Stdout, h.cmd.Stderr = &h.out, &h.out
	must(h.t, h.cmd.Start())
	eventually(h.t, time.Minute, "the hub is ready", func() bool {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(h.dir, "admin.kubeconfig"))
		if err != nil {
			return false
		}
		config.QPS = -1 // the client's own brake is not what is measured
		c, err := kubernetes.NewForConfig(config)
		if err != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		if _, err := c.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
			return false
		}
		h.client = c
		return true
	})
}

// kill ends the hub without a word, as a power cut does.
func (h *hub) kill() {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Kill() // it may have ended
	_ = h.cmd.Wait()
	h.cmd = nil
	if h.t.Failed() {
		h.t.Logf("the hub said:\n%s", tail(h.out.Bytes(), 8<<10))
	}
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// use is what the hub process has used so far.
type use struct {
	rss, anon, peak int64 // KiB
	cpu             time.Duration
	moved           int64 // bytes read and written, sockets and files together
	written         int64 // bytes written to files, as the kernel counts them
}

func (u use) String() string {
	return fmt.Sprintf("RSS %d MiB (anonymous %d, highest %d)", u.rss>>10, u.anon>>10, u.peak>>10)
}

func (h *hub) use() use {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.cmd.Process.Pid))
	must(h.t, err)
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return use{
		rss: h.number("status", "VmRSS:"), anon: h.number("status", "RssAnon:"), peak: h.number("status", "VmHWM:"),
		cpu:   time.Duration(user+system) * 10 * time.Millisecond, // USER_HZ is 100 on every Linux that Go knows
		moved: h.number("io", "rchar:") + h.number("io", "wchar:"), written: h.number("io", "write_bytes:"),
	}
}

// number reads one line of a file of /proc/PID.
func (h *hub) number(file, key string) int64 {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.cmd.Process.Pid, file))
	must(h.t, err)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			must(h.t, err)
			return n
		}
	}
	h.t.Fatalf("no %q in /proc/PID/%s", key, file)
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f holds. The limit only bounds a failing test.
func eventually(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
