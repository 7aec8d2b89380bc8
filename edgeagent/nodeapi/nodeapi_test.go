package nodeapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"petrel.dev/petrel/edgeagent/cgroupstat"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/streamconn"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// machine is a root directory with the kernel's files of a machine with one running container.
type machine struct {
	t    *testing.T
	root string

	pods     []*corev1.Pod // besides those of server
	pulls    []cruntime.PullProgress
	pullsErr error
}

func (m machine) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// used sets what has been used until now, in milliseconds of CPU.
func (m machine) used(node, container int) {
	m.write("sys/fs/cgroup/cgroup.controllers", "cpu memory")
	m.write("proc/stat", fmt.Sprintf("cpu %d 0 0 0 0 0 0 0\nbtime 1700000000\n", node/10))
	m.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\n")
	for _, dir := range []string{"sys/fs/cgroup/cg/u/c1", "sys/fs/cgroup/cg/u"} {
		m.write(dir+"/cpu.stat", fmt.Sprintf("usage_usec %d\n", container*1000))
		m.write(dir+"/memory.current", "3000")
		m.write(dir+"/memory.stat", "inactive_file 1000\nanon 500\n")
	}
}

func (m machine) server() *Server {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1700000100, 0)}}
	pods := []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u"}, Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", Image: "img", ContainerID: "containerd://c1", State: running}, {Name: "ended"}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pending", UID: "p"}},
	}
	return New(Config{NodeName: "pi", Pods: func() []*corev1.Pod { return append(pods, m.pods...) }, Panics: func() uint64 { return 3 },
		Cgroup: func(uid, id string) string { return filepath.Join("/cg", uid, id) }, LogDir: filepath.Join(m.root, "log"),
		Pulls: func(context.Context) ([]cruntime.PullProgress, error) { return m.pulls, m.pullsErr },
		Usage: cgroupstat.Reader{Root: m.root}, Log: slog.New(slog.DiscardHandler)})
}

// get asks for a path over one stream of the link.
func get(t *testing.T, s *Server, path string) (*http.Response, string) {
	t.Helper()
	hub, node := wiretest.Streams()
	done := make(chan struct{})
	go func() { s.Serve(t.Context(), node); close(done) }()
	if _, b, err := hub.Recv(t.Context()); err != nil || b != nil {
		t.Fatalf("the sign that the connection stands: %q, %v", b, err)
	}
	conn := streamconn.Dialed(hub, "node")
	defer func() { conn.Close(); <-done }()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: node\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// TestSummary asks twice: the first answer compares two samples of its own, a second apart, and the next one with an earlier one.
func TestSummary(t *testing.T) {
	m := machine{t: t, root: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		m.used(1000, 100)
		s := m.server()
		time.AfterFunc(500*time.Millisecond, func() { m.used(2000, 350) })
		check := func(window time.Duration, node, container uint64) {
			t.Helper()
			resp, body := get(t, s, "/stats/summary")
			var sum statsv1.Summary
			if err := json.Unmarshal([]byte(body), &sum); err != nil || len(sum.Pods) != 1 || len(sum.Pods[0].Containers) != 1 {
				t.Fatalf("%v: %s", err, body)
			}
			c := sum.Pods[0].Containers[0]
			if got := *sum.Node.CPU.UsageNanoCores; got != node || resp.Header.Get(kube.StatsWindowHeader) != window.String() {
				t.Errorf("the node: %d within %s; want %d within %s", got, resp.Header.Get(kube.StatsWindowHeader), node, window)
			}
			if *c.CPU.UsageNanoCores != container || *c.Memory.WorkingSetBytes != 2000 || c.Name != "app" || c.StartTime.Unix() != 1700000100 ||
				*sum.Pods[0].CPU.UsageNanoCores != container || sum.Pods[0].PodRef.UID != "u" {
				t.Errorf("the container: %s", body)
			}
			if *sum.Node.Memory.WorkingSetBytes != 500<<10 || sum.Node.NodeName != "pi" {
				t.Errorf("the node: %s", body)
			}
		}
		check(time.Second, 1e9, 250e6)
		time.Sleep(9 * time.Second)
		m.used(3000, 1350)
		check(10*time.Second, 200e6, 125e6) // since the first sample
		time.Sleep(10 * time.Second)
		m.used(3000, 2350)
		check(10*time.Second, 0, 100e6)
	})
}

// TestPaths covers what else there is, and that there is no more.
func TestPaths(t *testing.T) {
	m := machine{t: t, root: t.TempDir()}
	m.used(1000, 100)
	m.write("log/syslog", "line")
	m.write("log/app/x y.log", "app's")
	m.write("secret", "secret")
	if err := os.Symlink(filepath.Join(m.root, "secret"), filepath.Join(m.root, "log/app/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(m.root, filepath.Join(m.root, "log/up")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(m.root, "log/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := m.server()
	for path, want := range map[string]string{
		"/healthz":            "200 ok",
		"/pods":               `200 {"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"web"`,
		"/metrics":            "petrel_contained_panics_total 3\n",
		"/metrics/resource":   `container_memory_working_set_bytes{container="app",namespace="ns",pod="web"} 2000 `,
		"/metrics/cadvisor":   `container_cpu_usage_seconds_total{container="app",id="/cg/u/c1",image="img",name="c1",namespace="ns",pod="web"} 0.1 `,
		"/logs/":              `<a href="./app/">app/</a>` + "\n" + `<a href="./syslog">syslog</a>` + "\n</pre>",
		"/logs/syslog":        "200 line",
		"/logs/app":           "301 ",
		"/logs/app/":          `<a href="./x%20y.log">x y.log</a>` + "\n</pre>",
		"/logs/app/x%20y.log": "200 app's",
		"/logs/app/link":      "404",
		"/logs/up/secret":     "404",
		"/logs/up/":           "404",
		"/pulls":              "200 []\n",
		"/logs/pipe":          "404",
		"/logs/..%2Fsecret":   "404",
		"/logs/../secret":     "307",
		"/run/ns/web/app":     "404",
		"/exec/ns/web/app":    "404",
	} {
		resp, body := get(t, s, path)
		if got := fmt.Sprintf("%d %s", resp.StatusCode, body); !strings.Contains(got, want) {
			t.Errorf("%s: %s; want %s", path, got, want)
		}
	}
}

// TestSummaryOfSomePods asks about pods by UID, as an autoscaler does every 15 s over a link that may be paid by the byte: pods that are not
// asked about take no room.
func TestSummaryOfSomePods(t *testing.T) {
	m := machine{t: t, root: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		m.used(1000, 100)
		s := m.server()
		_, none := get(t, s, "/stats/summary?pod=another")
		_, one := get(t, s, "/stats/summary?pod=another&pod=u")
		if strings.Contains(none, `"web"`) || !strings.Contains(none, `"pods":[]`) || len(none) > 700 {
			t.Errorf("%d bytes: %s", len(none), none)
		}
		if !strings.Contains(one, `"web"`) || len(one)-len(none) > 900 {
			t.Errorf("%d bytes more for one container: %s", len(one)-len(none), one)
		}
		t.Logf("%d bytes for the node, %d for a pod with one container", len(none), len(one)-len(none))
	})
}
