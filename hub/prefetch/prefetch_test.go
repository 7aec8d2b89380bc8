package prefetch

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// fleet is nodes that answer each request with an end; a node without answers cannot be reached.
type fleet struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string][]wire.StreamEnd
	asked   []string // node and body
	gate    chan struct{}
}

func (f *fleet) OpenStream(ctx context.Context, node string, req wire.StreamRequest) (wire.Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.answers[node]
	if len(list) == 0 || req.Kind != wire.StreamFetch {
		f.asked = append(f.asked, node)
		return nil, errors.New("node " + node + " cannot be reached")
	}
	f.answers[node] = list[1:]
	hub, agent := wiretest.Streams()
	go func() {
		var body []byte
		for {
			_, b, err := agent.Recv(ctx)
			if err != nil || b == nil {
				break
			}
			body = append(body, b...)
		}
		f.mu.Lock()
		f.asked = append(f.asked, node+" "+string(body))
		f.mu.Unlock()
		select {
		case <-f.gate:
		case <-ctx.Done():
		}
		_ = agent.Close(list[0])
	}()
	return hub, nil
}

func node(name string, metered bool) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if metered {
		n.Labels = map[string]string{kube.MeteredLabel: "true"}
	}
	return n
}

func start(t *testing.T, answers map[string][]wire.StreamEnd) (*Fetcher, *fleet, *controltest.Events) {
	f := &fleet{t: t, answers: answers, gate: make(chan struct{})}
	events := &controltest.Events{}
	objs := controltest.New(t,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "login"}}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "login"}, Data: map[string][]byte{"k": []byte("v")}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "other"}})
	fetcher := New(Config{Objects: objs, Nodes: f, Events: events, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- fetcher.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return fetcher, f, events
}

func owner(prefetch string) *appsv1.DaemonSet {
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "agent", UID: "u"}}
	ds.SetGroupVersionKind(kube.DaemonSet)
	if prefetch != "" {
		ds.Annotations = map[string]string{kube.PrefetchAnnotation: prefetch}
	}
	return ds
}

var spec = &corev1.PodSpec{NodeSelector: map[string]string{"a": "b"}, Containers: []corev1.Container{{Name: "c", Image: "app:2", Command: []string{"x"}}}}

// TestWhere covers on which nodes images are fetched ahead.
func TestWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, events := start(t, map[string][]wire.StreamEnd{})
		for _, c := range []struct {
			annotation string
			metered    bool
			ready      bool
		}{{"", false, true}, {"", true, false}, {"true", false, false}, {"false", true, true}, {"maybe", false, true}, {"maybe", true, false}} {
			o := owner(c.annotation)
			o.UID += "x"
			if got := f.Ready(o, node(c.annotation+"n", c.metered), "h", spec, func() {}); got != c.ready {
				t.Errorf("%+v: %v", c, got)
			}
		}
		if e := strings.Join(events.Take(), " "); !strings.Contains(e, `"maybe" is not used`) {
			t.Errorf("%s", e)
		}
	})
}

// TestFetch has the old pod wait until the node has what the new one needs, with the pull secrets that admission would give it.
func TestFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, fleet, events := start(t, map[string][]wire.StreamEnd{"a": {{}}, "old": {{Reason: "NotFound", Message: "pod / is not on this node"}}})
		woken := 0
		ready := func(name string) bool { return f.Ready(owner(""), node(name, true), "h1", spec, func() { woken++ }) }
		for range 3 {
			if ready("a") || ready("old") {
				t.Fatal("ready before the node has answered")
			}
		}
		time.Sleep(time.Hour) // a large image on a slow link
		synctest.Wait()
		if ready("a") || len(fleet.asked) != 2 {
			t.Fatalf("%v", fleet.asked)
		}
		close(fleet.gate)
		synctest.Wait()
		if !ready("a") || !ready("old") || woken != 2 {
			t.Errorf("not ready after the answers, woken %d times", woken)
		}
		var req kube.ImageFetch
		_, body, _ := strings.Cut(fleet.asked[0], " ")
		if err := json.Unmarshal([]byte(body), &req); err != nil || len(req.Secrets) != 1 || req.Secrets[0].Name != "login" || string(req.Secrets[0].Data["k"]) != "v" ||
			req.Pod.Spec.ImagePullSecrets[0].Name != "login" || req.Pod.Namespace != "ns" || req.Pod.Spec.Containers[0].Image != "app:2" || strings.Contains(body, "command") {
			t.Errorf("%v: %s", err, body)
		}
		if e := events.Take(); len(e) > 0 {
			t.Errorf("%v", e)
		}
	})
}

// TestFailure goes on without the image after a few failures, and says so.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := wire.StreamEnd{Reason: "ServiceUnavailable", Message: "no such tag"}
		f, fleet, events := start(t, map[string][]wire.StreamEnd{"a": {bad, bad, bad}})
		close(fleet.gate)
		ready := func() bool { return f.Ready(owner(""), node("a", true), "h1", spec, func() {}) }
		ready()
		time.Sleep(pause)
		synctest.Wait()
		if ready() {
			t.Error("ready after two failures")
		}
		time.Sleep(pause)
		synctest.Wait()
		if !ready() || len(fleet.asked) != attempts {
			t.Errorf("asked %d times", len(fleet.asked))
		}
		if e := strings.Join(events.Take(), " "); !strings.Contains(e, "Warning PrefetchFailed DaemonSet/agent") || !strings.Contains(e, "no such tag") {
			t.Errorf("%s", e)
		}
	})
}

// TestAway begins anew for a node that was away: what it has is not known, and its update is deferred meanwhile.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, fleet, events := start(t, map[string][]wire.StreamEnd{})
		close(fleet.gate)
		woken := 0
		ready := func() bool { return f.Ready(owner(""), node("a", true), "h1", spec, func() { woken++ }) }
		ready()
		time.Sleep(maxAway * pause)
		synctest.Wait()
		if woken != 1 || len(fleet.asked) != maxAway || len(f.entries) != 0 {
			t.Errorf("woken %d times after %d tries, %d entries", woken, len(fleet.asked), len(f.entries))
		}
		fleet.mu.Lock()
		fleet.answers["a"] = []wire.StreamEnd{{}}
		fleet.mu.Unlock()
		if ready() {
			t.Error("ready without having been asked")
		}
		synctest.Wait()
		if !ready() || len(events.Take()) > 0 {
			t.Error("not ready when it is back")
		}
	})
}

// TestAnotherTemplate gives up what is not wanted any more.
func TestAnotherTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, fleet, events := start(t, map[string][]wire.StreamEnd{"a": {{}, {}}})
		woken := ""
		ready := func(hash string) bool {
			return f.Ready(owner(""), node("a", true), hash, spec, func() { woken += hash })
		}
		ready("h1")
		synctest.Wait()
		ready("h2")
		synctest.Wait()
		close(fleet.gate)
		synctest.Wait()
		if !ready("h2") || woken != "h2" || len(f.entries) != 1 || len(events.Take()) > 0 {
			t.Errorf("woken %q, %d entries", woken, len(f.entries))
		}
		time.Sleep(2 * keep)
		f.Ready(owner(""), node("b", true), "h2", spec, func() {})
		if f.mu.Lock(); len(f.entries) != 1 {
			t.Errorf("%d entries are kept", len(f.entries))
		}
		f.mu.Unlock()
	})
}
