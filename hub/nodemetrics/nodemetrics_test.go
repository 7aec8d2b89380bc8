package nodemetrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/resource/metrics"
	"petrel.dev/petrel/internal/kube"
)

// fleet is nodes that answer with a summary each, dark ones that cannot be dialed, and hung ones that say nothing.
type fleet struct {
	mu      sync.Mutex
	asked   map[string]int
	queries []string // of the nodes that answered
	summary map[string]string
}

func (f *fleet) absent(node string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.summary[node]; ok {
		return nil
	}
	return errors.New("node " + node + " is dark")
}

func (f *fleet) DialNode(_ context.Context, node string, port int32) (net.Conn, error) {
	f.mu.Lock()
	f.asked[node]++
	body, ok := f.summary[node]
	f.mu.Unlock()
	if !ok || port != 0 {
		return nil, errors.New("node " + node + " is dark")
	}
	hub, agent := net.Pipe()
	go func() {
		defer agent.Close()
		req, err := http.ReadRequest(bufio.NewReader(agent))
		if err != nil || req.URL.Path != "/stats/summary" {
			return
		}
		f.mu.Lock()
		f.queries = append(f.queries, req.URL.RawQuery)
		f.mu.Unlock()
		if body == "hangs" {
			_, _ = io.Copy(io.Discard, agent)
			return
		}
		fmt.Fprintf(agent, "HTTP/1.1 200 OK\r\n%s: 10s\r\nContent-Length: %d\r\n\r\n%s", kube.StatsWindowHeader, len(body), body)
	}()
	return hub, nil
}

func pod(namespace, name, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("u-" + name), Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
}

func summary(node, pods string) string {
	return `{"node":{"nodeName":"` + node + `","cpu":{"time":"2026-11-28T12:00:00Z","usageNanoCores":250000000},"memory":{"workingSetBytes":104857600}},"pods":[` + pods + `]}`
}

func podSummary(uid, containers string) string {
	return `{"podRef":{"uid":"` + uid + `"},"containers":[` + containers + `]}`
}

func container(name string, cpu, memory int) string {
	return fmt.Sprintf(`{"name":%q,"cpu":{"usageNanoCores":%d},"memory":{"workingSetBytes":%d}}`, name, cpu, memory)
}

func start(t *testing.T) (*Verbs, *fleet) {
	f := &fleet{asked: map[string]int{}, summary: map[string]string{
		"n1": summary("n1", podSummary("u-web", container("side", 1_500_000, 2<<20)+","+container("app", 5_000_000, 10<<20+5))+","+
			podSummary("u-half", container("app", 1, 1)+`,{"name":"new","memory":{"workingSetBytes":1}}`)+","+podSummary("u-other", container("app", 0, 4096))),
		"hung": "hangs",
	}}
	node := func(name string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}}
	}
	objs := controltest.New(t, node("n1"), node("dark"), node("hung"), pod("a", "web", "n1", corev1.PodRunning), pod("a", "half", "n1", corev1.PodRunning),
		pod("a", "ended", "n1", corev1.PodSucceeded), pod("a", "gone", "dark", corev1.PodRunning), pod("a", "new", "", corev1.PodPending), pod("b", "other", "n1", corev1.PodRunning))
	return New(Config{Objects: objs, Nodes: f, Absent: f.absent, Log: slog.New(slog.DiscardHandler)}), f
}

func target(t *testing.T, plural, namespace, name string) resource.Target {
	for _, k := range builtin.New().All() {
		if k.GVK.Group == metrics.NodeMetrics.Group && k.Plural == plural {
			return resource.Target{Kind: k, Namespace: namespace, Name: name}
		}
	}
	t.Fatalf("%s is not served", plural)
	return resource.Target{}
}

func names(res *registry.ListResult) (out []string) {
	for _, item := range res.Items {
		_, rest, _ := strings.Cut(string(item), `"name":"`)
		name, _, _ := strings.Cut(rest, `"`)
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// TestReads covers who has metrics and who has none, what selects them, and that nodes are asked once for all and not again soon.
func TestReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, f := start(t)
		for _, c := range []struct {
			plural, namespace string
			opts              *metav1.ListOptions
			want              string
		}{
			{"nodes", "", nil, "[n1]"}, // the dark and the hung one have none
			{"pods", "", nil, "[other web]"},
			{"pods", "a", nil, "[web]"},
			{"pods", "", &metav1.ListOptions{LabelSelector: "app=other"}, "[other]"},
			{"pods", "", &metav1.ListOptions{FieldSelector: "metadata.name=web"}, "[web]"},
			{"nodes", "", &metav1.ListOptions{LabelSelector: "name=dark"}, "[]"},
		} {
			res, err := v.List(t.Context(), target(t, c.plural, c.namespace, ""), c.opts)
			if err != nil || fmt.Sprint(names(res)) != c.want {
				t.Errorf("%s in %q, %+v: %v, %v; want %s", c.plural, c.namespace, c.opts, names(res), err, c.want)
			}
		}
		if f.asked["n1"] != 1 {
			t.Errorf("n1 was asked %d times for what is fresh", f.asked["n1"])
		}
		for _, opts := range []*metav1.ListOptions{{LabelSelector: "!!"}, {FieldSelector: "spec.x=y"}, {FieldSelector: "a"}} {
			if _, err := v.List(t.Context(), target(t, "pods", "", ""), opts); !apierrors.IsBadRequest(err) {
				t.Errorf("%+v: %v", opts, err)
			}
		}
		res, err := v.Get(t.Context(), target(t, "pods", "a", "web"), nil)
		const want = `"timestamp":"2026-11-28T12:00:00Z","window":"10s","containers":[{"name":"app","usage":{"cpu":"5m","memory":"10Mi"}},{"name":"side","usage":{"cpu":"1500u","memory":"2Mi"}}]}`
		if err != nil || !strings.HasSuffix(string(res.JSON), want) || !strings.Contains(string(res.JSON), `"labels":{"app":"web"}`) {
			t.Errorf("%v: %s; want %s", err, res.JSON, want)
		}
		if res, err := v.Get(t.Context(), target(t, "nodes", "", "n1"), nil); err != nil || !strings.Contains(string(res.JSON), `"usage":{"cpu":"250m","memory":"100Mi"}`) {
			t.Errorf("%v: %s", err, res.JSON)
		}
		for _, tt := range []resource.Target{target(t, "pods", "a", "none"), target(t, "pods", "a", "gone"), target(t, "pods", "a", "ended"), target(t, "nodes", "", "dark"), target(t, "nodes", "", "none")} {
			if _, err := v.Get(t.Context(), tt, nil); !apierrors.IsNotFound(err) {
				t.Errorf("%s: %v", tt.Name, err)
			} else if dark := tt.Name == "dark" || tt.Name == "gone"; dark != strings.HasSuffix(err.Error(), `" not found: node dark is dark`) {
				t.Errorf("%s: %v; it should say what is not connected, and nothing else should", tt.Name, err)
			}
		}
		f.mu.Lock()
		answer := f.summary["n1"]
		delete(f.summary, "n1")
		f.mu.Unlock()
		if _, err := v.Get(t.Context(), target(t, "nodes", "", "n1"), nil); !apierrors.IsNotFound(err) {
			t.Errorf("a node that has just become dark: %v", err)
		}
		f.mu.Lock()
		f.summary["n1"] = answer
		f.mu.Unlock()
		time.Sleep(fresh)
		if _, err := v.Get(t.Context(), target(t, "nodes", "", "n1"), nil); err != nil || f.asked["n1"] != 2 {
			t.Errorf("n1 was asked %d times, %v", f.asked["n1"], err)
		}
		time.Sleep(forget + time.Second)
		synctest.Wait()
		v.asker.mu.Lock()
		defer v.asker.mu.Unlock()
		if len(v.asker.answers) != 0 {
			t.Errorf("%d answers are kept though nobody asks", len(v.asker.answers))
		}
	})
}

// TestPods asks nodes about some of their pods: only their nodes, only about them, and again when the answer is no longer fresh; one about
// the whole node serves too.
func TestPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, f := start(t)
		pods := []*corev1.Pod{pod("b", "other", "n1", corev1.PodRunning), pod("a", "web", "n1", corev1.PodRunning), pod("a", "new", "", corev1.PodPending),
			pod("a", "gone", "dark", corev1.PodRunning), pod("a", "half", "n1", corev1.PodRunning)}
		check := func(asked int, queries string) {
			t.Helper()
			got := v.Pods(t.Context(), pods)
			if len(got) != 2 || got[0].Name != "other" || got[1].Name != "web" || got[1].Containers[0].Usage.Cpu().String() != "5m" {
				t.Errorf("%v", got)
			}
			if f.asked["n1"] != asked || strings.Join(f.queries, " ") != queries {
				t.Errorf("asked %d times, %v; want %d, %s", f.asked["n1"], f.queries, asked, queries)
			}
		}
		check(1, "pod=u-half&pod=u-other&pod=u-web")
		check(1, "pod=u-half&pod=u-other&pod=u-web")
		time.Sleep(fresh)
		if _, err := v.Get(t.Context(), target(t, "nodes", "", "n1"), nil); err != nil {
			t.Error(err)
		}
		check(2, "pod=u-half&pod=u-other&pod=u-web ")
		for range 100 { // pods come and go: answers about those that are gone do not pile up
			pods[0].UID += "x"
			time.Sleep(fresh)
			v.Pods(t.Context(), pods)
		}
		v.asker.mu.Lock()
		defer v.asker.mu.Unlock()
		if n := len(v.asker.answers); n > 6 {
			t.Errorf("%d answers are kept", n)
		}
	})
}
