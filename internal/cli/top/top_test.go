package top

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/internal/cli"
)

// fleet serves nodes pi1 to pi3, of which pi2 is dark, and the metrics of two pods.
func fleet(t *testing.T) cli.Cluster {
	t.Helper()
	node := func(name string) any {
		return map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name}, "status": map[string]any{
			"allocatable": map[string]any{"cpu": "4", "memory": "4Gi"}, "capacity": map[string]any{"cpu": "8", "memory": "8Gi"},
		}}
	}
	usage := func(cpu, memory string) map[string]any { return map[string]any{"cpu": cpu, "memory": memory} }
	metrics := func(name, cpu, memory string) any {
		return map[string]any{"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "metadata": map[string]any{"name": name}, "usage": usage(cpu, memory)}
	}
	pod := func(namespace, name string, containers ...any) any {
		return map[string]any{"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "metadata": map[string]any{"name": name, "namespace": namespace}, "containers": containers}
	}
	container := func(name, cpu, memory string) any { return map[string]any{"name": name, "usage": usage(cpu, memory)} }
	weak := node("pi3") // a table of it alone has a line below it
	weak.(map[string]any)["status"].(map[string]any)["conditions"] = []any{
		map[string]any{"type": "Ready", "status": "True", "message": "fine"},
		map[string]any{"type": "petrel.dev/HighTemperature", "status": "False", "message": "cool"},
		map[string]any{"type": "petrel.dev/UnderVoltage", "status": "True", "message": "the voltage is too low"},
	}
	dark := node("pi2") // without metrics
	dark.(map[string]any)["status"].(map[string]any)["conditions"] = []any{
		map[string]any{"type": "petrel.dev/Dark", "status": "True", "message": "The hub has not heard of this node since noon."},
	}
	list := func(kind string, items ...any) any {
		return map[string]any{"apiVersion": "v1", "kind": kind, "items": items}
	}
	web := pod("default", "web", container("main", "250m", "64Mi"), container("side", "3m", "100Mi"))
	const group = "/apis/metrics.k8s.io/v1beta1"
	answers := map[string]any{
		"/api/v1/nodes":                        list("NodeList", node("pi3"), node("pi2"), node("pi1")),
		"/api/v1/nodes/pi2":                    node("pi2"),
		"/api/v1/nodes/weak":                   weak,
		"/api/v1/nodes/lost":                   dark,
		group + "/nodes/weak":                  metrics("pi3", "1999m", "512Mi"),
		group + "/nodes":                       list("NodeMetricsList", metrics("pi1", "1", "1Gi"), metrics("pi3", "1999m", "512Mi")),
		group + "/namespaces/default/pods":     list("PodMetricsList", web),
		group + "/pods":                        list("PodMetricsList", web, pod("a", "db", container("main", "1500u", "2Gi"))),
		group + "/namespaces/empty/pods":       list("PodMetricsList"),
		group + "/namespaces/default/pods/web": web,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		a, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			a = map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": r.URL.Path + " not found"}
		}
		_ = json.NewEncoder(w).Encode(a) // a client that went away is not the test's concern
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: f, clusters: [{name: f, cluster: {server: %q}}], contexts: [{name: f, context: {cluster: f, user: f}}], users: [{name: f, user: {token: x}}]}", srv.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return cli.Cluster{Kubeconfig: file}
}

func TestTop(t *testing.T) {
	at := fleet(t)
	in := func(namespace string) cli.Cluster {
		return cli.Cluster{Kubeconfig: at.Kubeconfig, Namespace: namespace}
	}
	type command interface {
		Run(ctx context.Context, s *cli.Streams) error
	}
	for _, c := range []struct {
		name string
		run  command
		want string // lines, their trailing spaces cut
	}{
		{"nodes", &Nodes{view: view{Cluster: at}}, `
NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)
pi1    1000m        25%         1024Mi          25%
pi3    1999m        49%         512Mi           12%
pi2    <unknown>    <unknown>   <unknown>       <unknown>`},
		{"a board in need", &Nodes{view: view{Cluster: at}, Node: "weak"}, `
NAME   CPU(cores)   CPU(%)   MEMORY(bytes)   MEMORY(%)
pi3    1999m        49%      512Mi           12%

pi3: the voltage is too low`},
		{"for programs", &Nodes{view: view{Cluster: at, NoHeaders: true}, Node: "weak"}, `
pi3   1999m   49%   512Mi   12%`},
		{"nodes by cpu of the capacity", &Nodes{view: view{Cluster: at, SortBy: "cpu", NoHeaders: true}, ShowCapacity: true}, `
pi3   1999m       24%         512Mi       6%
pi1   1000m       12%         1024Mi      12%
pi2   <unknown>   <unknown>   <unknown>   <unknown>`},
		{"a dark node", &Nodes{view: view{Cluster: at, NoHeaders: true}, Node: "pi2"}, `
pi2   <unknown>   <unknown>   <unknown>   <unknown>`},
		{"a dark node, for people", &Nodes{view: view{Cluster: at}, Node: "lost"}, `
NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)
pi2    <unknown>    <unknown>   <unknown>       <unknown>

pi2: The hub has not heard of this node since noon.`},
		{"pods", &Pods{view: view{Cluster: in("default")}}, `
NAME   CPU(cores)   MEMORY(bytes)
web    253m         164Mi`},
		{"a pod", &Pods{view: view{Cluster: in("default"), NoHeaders: true}, Pod: "web"}, `
web   253m   164Mi`},
		{"pods of all namespaces", &Pods{view: view{Cluster: at}, AllNamespaces: true, Sum: true}, `
NAMESPACE   NAME   CPU(cores)   MEMORY(bytes)
a           db     2m           2048Mi
default     web    253m         164Mi
                   ________     ________
                   255m         2212Mi`},
		{"containers", &Pods{view: view{Cluster: at, SortBy: "cpu"}, AllNamespaces: true, Containers: true}, `
NAMESPACE   POD   NAME   CPU(cores)   MEMORY(bytes)
default     web   main   250m         64Mi
default     web   side   3m           100Mi
a           db    main   2m           2048Mi`},
		{"containers by memory", &Pods{view: view{Cluster: in("default"), SortBy: "memory", NoHeaders: true}, Containers: true}, `
web   side   3m     100Mi
web   main   250m   64Mi`},
		{"no pods", &Pods{view: view{Cluster: in("empty")}}, "\n"},
	} {
		var out, errs bytes.Buffer
		if err := c.run.Run(t.Context(), &cli.Streams{Out: &out, Err: &errs}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], " ")
		}
		if got := "\n" + strings.Join(lines, "\n"); got != c.want {
			t.Errorf("%s: got%s\nwant%s", c.name, got, c.want)
		}
		if (c.name == "no pods") != strings.Contains(errs.String(), "No running pods") {
			t.Errorf("%s: %q", c.name, errs.String())
		}
	}
	for _, c := range []command{
		&Nodes{view: view{Cluster: at}, Node: "pi9"}, &Nodes{view: view{Cluster: at, Selector: "a=b"}, Node: "pi1"}, &Pods{view: view{Cluster: at}, Pod: "gone"},
		&Pods{view: view{Cluster: at}, Pod: "web", AllNamespaces: true}, &Pods{view: view{Cluster: at, Selector: "a=b"}, Pod: "web"},
		&Pods{view: view{Cluster: at, Watch: true}},
	} {
		if err := c.Run(t.Context(), &cli.Streams{Out: io.Discard, Err: io.Discard}); err == nil {
			t.Errorf("%+v succeeded", c)
		}
	}
}

// TestWatch checks that frames come at the interval, and that an error is shown but ends nothing once there was a frame.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		var out bytes.Buffer
		n := 0
		v := view{Watch: true, Interval: 5 * time.Second}
		err := v.show(ctx, &cli.Streams{Out: &out}, func(w io.Writer) error {
			if n++; n == 2 {
				return errors.New("the link is away")
			}
			_, err := fmt.Fprintf(w, "frame %d\n", n)
			return err
		})
		if want := "frame 1\n\npetrel: the link is away\n\nframe 3\n"; out.String() != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q, %v, want %q", out.String(), err, want)
		}
		failed := errors.New("refused")
		if err := v.show(ctx, &cli.Streams{Out: &out}, func(io.Writer) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("the first frame failed, and show returned %v", err)
		}
	})
}
