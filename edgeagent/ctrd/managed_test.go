package ctrd

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/wire"
)

// bench is a pod manager on a real containerd; its pods use the node's own network.
type bench struct {
	t       *testing.T
	runtime *Runtime
	manager *podrun.Manager
	dir     string // of its pods
	set     []wire.Object

	mu       sync.Mutex
	statuses map[string]corev1.PodStatus
	events   []corev1.Event
}

type noNetwork struct{}

func (noNetwork) Attach(context.Context, string) (podrun.Attachment, error) {
	return podrun.Attachment{}, nil
}
func (noNetwork) Detach(context.Context, string) error { return nil }

func newBench(t *testing.T) *bench {
	r := private(t)
	dir := filepath.Join(t.TempDir(), "pods")
	b := &bench{t: t, runtime: r, dir: dir, statuses: map[string]corev1.PodStatus{}}
	b.manager = podrun.NewManager(podrun.Config{Runtime: r, Network: noNetwork{}, Volumes: &volume.Mounter{Dir: dir, Images: r.VolumeImages()}, VolumeImages: r.VolumeImages(), Dir: dir, NodeName: "n", PodPidsLimit: 64,
		NodeIPs: func() []string { return []string{"127.0.0.1"} }, DNS: podspec.DNS{Domain: "cluster.local"},
		Report: b.report, Forget: func(wire.ID) error { return nil }, Logs: r.Logs(),
		Dial: func(ctx context.Context, _, _ string, port int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		},
		Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.manager.Run(ctx) }()
	t.Cleanup(func() {
		b.set = nil
		b.apply()
		b.empty()
		cancel()
		<-done
	})
	return b
}

// empty waits until all pods have gone.
func (b *bench) empty() {
	b.t.Helper()
	for end := time.Now().Add(runtimetest.Hope); b.manager.Running() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Error("pods are left")
			return
		}
	}
}

func (b *bench) report(o wire.Object) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch o.Kind {
	case wire.KindPodStatus:
		var r wire.PodReport
		var st corev1.PodStatus
		if err := json.Unmarshal(o.Data, &r); err != nil {
			return err
		}
		if err := json.Unmarshal(r.Status, &st); err != nil {
			return err
		}
		b.statuses[o.UID] = st
	case wire.KindEvent:
		var e corev1.Event
		if err := json.Unmarshal(o.Data, &e); err != nil {
			return err
		}
		b.events = append(b.events, e)
	}
	return nil
}

func (b *bench) apply() {
	b.manager.Apply(desired.Decode(b.set, nil, slog.New(slog.DiscardHandler)), true)
}

func (b *bench) add(kind wire.Kind, uid, name string, v any) {
	b.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	b.set = append(b.set, wire.Object{ID: wire.ID{Kind: kind, UID: uid}, Version: uint64(len(b.set) + 1), Namespace: "default", Name: name, Data: data})
}

func (b *bench) pod(name string, c corev1.Container, change ...func(*corev1.Pod)) {
	b.t.Helper()
	if c.Image == "" {
		c.Image = testImage
	}
	c.Name = "main"
	grace := int64(1)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)},
		Spec: corev1.PodSpec{HostNetwork: true, RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{c}}}
	for _, f := range change {
		f(p)
	}
	b.add(wire.KindPod, name, name, p)
	b.apply()
}

func (b *bench) await(uid, what string, ok func(corev1.PodStatus) bool) corev1.PodStatus {
	b.t.Helper()
	for end := time.Now().Add(runtimetest.Hope); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b.mu.Lock()
		st, known := b.statuses[uid]
		b.mu.Unlock()
		if known && ok(st) {
			return st
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	text, _ := json.MarshalIndent(b.statuses[uid].ContainerStatuses, "", " ")
	b.t.Fatalf("pod %s never is %s: %s", uid, what, text)
	return corev1.PodStatus{}
}

// awaitLog waits until the log of a pod's container has some text.
func (b *bench) awaitLog(uid, text string) {
	b.t.Helper()
	log := ""
	for end := time.Now().Add(runtimetest.Hope); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		list, err := b.runtime.Containers(context.Background(), uid)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, c := range list {
			if c.Name == "main" && c.LogPath != "" {
				if log = readLog(b.runtime)(b.t, c.LogPath); strings.Contains(log, text) {
					return
				}
			}
		}
	}
	b.t.Fatalf("the log of %s never has %q: %s", uid, text, log)
}

func isRunning(st corev1.PodStatus) bool {
	return st.Phase == corev1.PodRunning && st.ContainerStatuses[0].State.Running != nil
}

// dial opens a stream to the manager; what is returned is the hub's end.
func (b *bench) dial(req wire.StreamRequest) *wire.Endpoint {
	var key [32]byte
	var hub, node *wire.Endpoint
	up, down := make(chan []byte, 4096), make(chan []byte, 4096)
	hub = wire.NewEndpoint(key, true, func(f []byte) { down <- f })
	node = wire.NewEndpoint(key, false, func(f []byte) { up <- f })
	go func() {
		for f := range up {
			hub.Deliver(f)
		}
	}()
	go func() {
		for f := range down {
			node.Deliver(f)
		}
	}()
	node.Start()
	go b.manager.ServeStream(context.Background(), req, node)
	return hub
}

// drain reads a stream to its end.
func drain(t *testing.T, s wire.Stream) (stdout, stderr string, end *wire.StreamEnd) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Hope)
	defer cancel()
	var out, errs strings.Builder
	for {
		ch, data, err := s.Recv(ctx)
		if err != nil {
			e, ok := err.(*wire.StreamEnd)
			if !ok {
				t.Fatalf("stream ended by %v after %q %q", err, out.String(), errs.String())
			}
			return out.String(), errs.String(), e
		}
		switch ch {
		case wire.ChannelStdout:
			out.Write(data)
		case wire.ChannelStderr:
			errs.Write(data)
		}
	}
}

// until reads stdout until it contains text.
func until(t *testing.T, s wire.Stream, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Hope)
	defer cancel()
	var out strings.Builder
	for !strings.Contains(out.String(), text) {
		_, data, err := s.Recv(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, out.String())
		}
		out.Write(data)
	}
	return out.String()
}

func send(t *testing.T, s wire.Stream, ch wire.Channel, text string) {
	t.Helper()
	if err := s.Send(context.Background(), ch, []byte(text)); err != nil {
		t.Fatal(err)
	}
}
