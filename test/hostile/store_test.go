package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/internal/porttest"
	"petrel.dev/petrel/test/harness"
)

// storeHub is a hub process on a data directory of the test's choice, and a client of it with the administrator's rights.
type storeHub struct {
	*harness.Process
	t       *testing.T
	dir     string
	address string
	url     string
	client  *http.Client
}

func newStoreHub(t *testing.T, dir string) *storeHub {
	t.Helper()
	return &storeHub{t: t, dir: dir, address: porttest.Address()}
}

// start starts the hub and waits until it answers, whatever it says of its readiness.
func (h *storeHub) start(args ...string) {
	h.t.Helper()
	host, _, _ := net.SplitHostPort(h.address)
	h.Process = harness.Start(h.t, harness.Machine{}, "hub", append([]string{"hub", "--data-dir", h.dir, "--listen", h.address, "--advertise", host}, args...)...)
	harness.Eventually(h.t, time.Minute, "the hub answers", func() error {
		cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(h.dir, "admin.kubeconfig"))
		if err != nil {
			return err
		}
		if h.client, err = rest.HTTPClientFor(cfg); err != nil {
			return err
		}
		h.url = cfg.Host
		_, _, err = h.try("GET", "/livez", "", "")
		return err
	})
}

func (h *storeHub) try(method, path, kind, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, h.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	resp, err := h.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// do makes a request and returns its status and body.
func (h *storeHub) do(method, path, body string) (int, string) {
	h.t.Helper()
	kind := "application/json"
	if method == "PATCH" {
		kind = "application/merge-patch+json"
	}
	code, text, err := h.try(method, path, kind, body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return code, text
}

// must is do, and the request must succeed.
func (h *storeHub) must(method, path, body string) string {
	h.t.Helper()
	code, text := h.do(method, path, body)
	if code/100 != 2 {
		h.t.Fatalf("%s %s: %d %s", method, path, code, text[:min(len(text), 400)])
	}
	return text
}

const configMaps = "/api/v1/namespaces/default/configmaps"

// noise is text of n bytes that nothing compresses or shares.
func noise(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func mapOf(name string, bytes int) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"k":%q}}`, name, noise(bytes))
}

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestStoreHistoryOnASmallDisk covers one object of 1 MB, changed again and again, on a disk of 64 MB. It filled the disk with
// its own past, and then neither a deletion nor time nor a restart helped.
func TestStoreHistoryOnASmallDisk(t *testing.T) {
	beside(t)
	h := newStoreHub(t, smallDisk(t, "64m"))
	h.start()
	times := 80
	if Full() {
		times = 300
	}
	h.must("POST", configMaps, mapOf("big", 1<<20))
	h.must("POST", configMaps, mapOf("small", 100))
	for range times {
		h.must("PATCH", configMaps+"/big", fmt.Sprintf(`{"data":{"k":%q}}`, noise(1<<20)))
	}
	if code, text := h.do("GET", "/readyz", ""); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, text)
	}
	h.must("DELETE", configMaps+"/small", "")
	h.Stop(syscall.SIGTERM)
	h.start()
	h.must("PATCH", configMaps+"/big", fmt.Sprintf(`{"data":{"k":%q}}`, noise(1<<20)))
	h.must("DELETE", configMaps+"/big", "")
	h.must("POST", configMaps, mapOf("after", 1<<20))
}

// TestStoreBigUpdates covers many updates of one object of 1 MB, while clients watch and do not read. Neither memory nor file
// may grow with their number: 500 updates left 525 MB, with one such client 1.46 GB, and a file of 506 MB.
func TestStoreBigUpdates(t *testing.T) {
	h := newStoreHub(t, t.TempDir())
	h.start()
	times := 150
	if Full() {
		times = 500
	}
	h.must("POST", configMaps, mapOf("big", 1<<20))
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	for range 3 {
		resp, err := h.client.Get(h.url + configMaps + "?watch=true")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() // and nobody reads it
	}
	for range times {
		h.must("PATCH", configMaps+"/big", fmt.Sprintf(`{"data":{"k":%q}}`, noise(1<<20)))
	}
	after := harness.UsageOf(t, h.Cmd.Process.Pid)
	fi, err := os.Stat(filepath.Join(h.dir, "hub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d updates of 1 MB: RSS %d → %d MiB, highest %d MiB; hub.db %d MiB", times, before.RSS>>10, after.RSS>>10, after.Peak>>10, fi.Size()>>20)
	if after.Peak > 300<<10 {
		t.Errorf("the hub had up to %d MiB", after.Peak>>10)
	}
	if fi.Size() > 80<<20 {
		t.Errorf("hub.db has %d MiB", fi.Size()>>20)
	}
}

// TestStoreOverItsLimit checks that one client makes all the objects it can. Beyond the store's limit it is refused with the
// reason; readiness and an Event tell; others' deletions go on; and then all is well again.
func TestStoreOverItsLimit(t *testing.T) {
	beside(t)
	h := newStoreHub(t, t.TempDir())
	h.start("--store-limit", "16Mi")
	h.must("POST", configMaps, mapOf("innocent", 1000))
	n, code, text := 0, 0, ""
	for ; n < 40; n++ {
		if code, text = h.do("POST", configMaps, mapOf(fmt.Sprint("fill-", n), 1<<20)); code/100 != 2 {
			break
		}
	}
	if code != http.StatusInsufficientStorage || !strings.Contains(text, "--store-limit") || n < 10 || n > 16 {
		t.Fatalf("after %d objects of 1 MB: %d %s", n, code, text)
	}
	for i := range 40 { // and up to the last byte
		if code, _ := h.do("POST", configMaps, mapOf(fmt.Sprint("more-", i), 50<<10)); code == http.StatusInsufficientStorage {
			break
		}
	}
	if code, text := h.do("GET", "/readyz", ""); code != http.StatusServiceUnavailable || !strings.Contains(text, "only deletions") {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, text := h.do("GET", "/livez", ""); code != http.StatusOK {
		t.Errorf("livez: %d %s", code, text)
	}
	harness.Eventually(t, 20*time.Second, "an Event tells", func() error {
		if text := h.must("GET", "/api/v1/events?fieldSelector=reason%3DStoreFull", ""); !strings.Contains(text, "only deletions") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	h.must("PATCH", configMaps+"/innocent", `{"data":{"k":"smaller"}}`)
	h.must("DELETE", configMaps+"/innocent", "")
	for i := range n {
		h.must("DELETE", configMaps+fmt.Sprint("/fill-", i), "")
	}
	if code, text := h.do("GET", "/readyz", ""); code != http.StatusOK {
		t.Errorf("readyz afterwards: %d %s", code, text)
	}
	h.must("POST", configMaps, mapOf("after", 1<<20))
}

// TestStoreAMillionReplicas covers a typing error. The hub makes as many pods as it takes, says why it makes no more, comes to
// rest, and can be scaled down, also after a restart.
func TestStoreAMillionReplicas(t *testing.T) {
	beside(t)
	h := newStoreHub(t, t.TempDir())
	limit, args := 2000, []string{"--max-pods", "2000"}
	if Full() {
		limit, args = 20_000, nil
	}
	h.start(args...)
	h.must("POST", "/apis/apps/v1/namespaces/default/deployments", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},
		"spec":{"replicas":1000000,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
		"spec":{"containers":[{"name":"c","image":"registry.example/web"}]}}}}`)
	count := func() int {
		var list struct {
			Metadata struct{ RemainingItemCount int }
			Items    []json.RawMessage
		}
		if err := json.Unmarshal([]byte(h.must("GET", "/api/v1/pods?limit=1", "")), &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Items) + list.Metadata.RemainingItemCount
	}
	harness.Eventually(t, 5*time.Minute, "the reason is told", func() error {
		if text := h.must("GET", "/apis/apps/v1/namespaces/default/deployments/web", ""); !strings.Contains(text, "--max-pods") {
			return fmt.Errorf("%d pods; %s", count(), text[max(0, len(text)-600):])
		}
		return nil
	})
	if n := count(); n > limit+300 {
		t.Errorf("%d pods, %d are allowed", n, limit)
	}
	var busy time.Duration
	harness.Eventually(t, 3*time.Minute, "the hub comes to rest", func() error {
		before := harness.UsageOf(t, h.Cmd.Process.Pid)
		time.Sleep(5 * time.Second)
		if busy = harness.UsageOf(t, h.Cmd.Process.Pid).CPU - before.CPU; busy > time.Second {
			return fmt.Errorf("%s of CPU in 5 s", busy)
		}
		return nil
	})
	use := harness.UsageOf(t, h.Cmd.Process.Pid)
	t.Logf("%d pods: RSS %d MiB, highest %d MiB; at rest %s of CPU in 5 s", count(), use.RSS>>10, use.Peak>>10, busy)
	h.Stop(syscall.SIGTERM)
	h.start(args...)
	use = harness.UsageOf(t, h.Cmd.Process.Pid)
	t.Logf("after a restart: RSS %d MiB, highest %d MiB", use.RSS>>10, use.Peak>>10)
	h.must("PATCH", "/apis/apps/v1/namespaces/default/deployments/web", `{"spec":{"replicas":0}}`)
	harness.Eventually(t, 5*time.Minute, "all pods are gone", func() error {
		if n := count(); n > 0 {
			return fmt.Errorf("%d pods are left", n)
		}
		return nil
	})
}

// TestStoreDamagedObject checks that a bit of one object has flipped. The start says what to do; with --salvage all else is
// there, and what is not is named.
func TestStoreDamagedObject(t *testing.T) {
	beside(t)
	dir := t.TempDir()
	h := newStoreHub(t, dir)
	h.start()
	h.must("POST", configMaps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad"},"data":{"k":"flip-me-please"}}`)
	h.must("POST", configMaps, mapOf("good", 1000))
	h.Stop(syscall.SIGTERM)
	path := filepath.Join(dir, "hub.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("flip-me-please"))] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p := harness.Start(t, harness.Machine{}, "damaged hub", "hub", "--data-dir", dir, "--listen", h.address)
	if err := <-p.Done; err == nil {
		t.Fatal("a hub with a damaged object starts")
	} else {
		p.Done <- err
	}
	if out := p.Out.String(); !strings.Contains(out, "--salvage") || !strings.Contains(out, "damaged") {
		t.Errorf("it says:\n%s", out)
	}
	h.start("--salvage")
	h.must("GET", configMaps+"/good", "")
	if code, _ := h.do("GET", configMaps+"/bad", ""); code != http.StatusNotFound {
		t.Errorf("the damaged object: %d", code)
	}
	if out := h.Out.String(); !strings.Contains(out, "/core/configmaps/default/bad") {
		t.Errorf("the log does not name it:\n%s", out)
	}
}
