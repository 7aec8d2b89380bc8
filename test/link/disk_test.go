package link_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/broker"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

// A full disk: the node says what is wrong, keeps its session and goes on reporting, and takes what it was sent when
// there is room again.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to mount a small disk")
		}
		t.Skip("needs root, to mount a small disk")
	}
	h := newHub(t, "").start()
	a := newAgent(t, "n1", h.token(jointoken.Options{}))
	must(t, syscall.Mount("tmpfs", a.dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { a.kill(); _ = syscall.Unmount(a.dir, syscall.MNT_DETACH) })
	a.start()
	h.waitConnected("n1")
	old := h.client.Put(pod("old", "n1")).(*corev1.Pod)
	eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "old") != nil })

	filler := filepath.Join(a.dir, "filler")
	f, err := os.Create(filler)
	must(t, err)
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	h.client.Put(pod("new", "n1", func(p *corev1.Pod) { p.Annotations = map[string]string{"size": randomHex(8 << 10)} }))
	eventually(t, "the node says that its disk is full", func() bool {
		s := a.link.Status()
		return s.Connected && strings.Contains(s.Problem, "no space left")
	})
	a.podStatus(old, corev1.PodRunning)
	eventually(t, "reports still go up", func() bool { return h.pod("old").Status.Phase == corev1.PodRunning })
	if a.has(wire.KindPod, "new") != nil {
		t.Error("what is not stored was accepted")
	}
	must(t, os.Remove(filler))
	eventually(t, "the new pod is taken", func() bool { return a.has(wire.KindPod, "new") != nil })
	if s := a.link.Status(); !s.Connected || s.Problem != "" {
		t.Errorf("status afterwards: %+v", s)
	}
}

// However an agent ends, its broker tells the hub: the good-bye of the session itself may get lost.
func TestLastWords(t *testing.T) {
	url := mosquitto(t)
	h := newHub(t, url).start()
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	live := make(chan struct{}, 1)
	c := paho.NewClient(paho.NewClientOptions().AddBroker(strings.Replace(url, "mqtt", "tcp", 1)))
	tok := c.Connect()
	tok.Wait()
	must(t, tok.Error())
	defer c.Disconnect(0)
	tok = c.Subscribe(wire.LiveTopic(h.keys.ClusterID, wire.NodeID(a.link.Status().Device)), 1, func(paho.Client, paho.Message) {
		select {
		case live <- struct{}{}:
		default:
		}
	})
	tok.Wait()
	must(t, tok.Error())
	a.kill()
	select {
	case <-live:
	case <-time.After(30 * time.Second):
		t.Error("the broker kept the last words of a stopped agent to itself")
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The password for an external broker stands in no log and no status.
func TestBrokerPasswordStaysSecret(t *testing.T) {
	const url = "mqtt://fleet:geheim@127.0.0.1:1" // nobody is there
	var log syncBuffer
	ext, err := broker.NewExternal(broker.ExternalConfig{URL: url, Cluster: "c", Log: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = ext.Run(ctx, func(string, []byte) {}, func(bool) {}) }()
	eventually(t, "the hub says that its broker is away", func() bool { return log.String() != "" })

	h := newHub(t, url)
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	eventually(t, "the agent says that its broker is away", a.problem("127.0.0.1:1"))
	for _, said := range []string{log.String(), a.link.Status().Problem} {
		if strings.Contains(said, "geheim") {
			t.Errorf("told the password: %s", said)
		}
	}
}
