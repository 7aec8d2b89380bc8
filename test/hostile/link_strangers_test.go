package hostile

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/link"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/test/harness"
)

// TestLinkStrangersLockNobodyOut has self-made devices knock at a hub that has just started. They get the room of strangers
// and no more, and the node that the hub knows comes back at once. (Before: 4,100 of them kept it out for as long as they
// liked.)
func TestLinkStrangersLockNobodyOut(t *testing.T) {
	beside(t)
	h := harness.StartHub(t, harness.Here)
	token := h.Token("--uses", "0")
	cluster, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stop := knownNode(t, h, dir, token)
	stop()
	h.Stop(syscall.SIGKILL)
	h.Start()

	devices := 300
	if Full() {
		devices = 4100
	}
	conns := make(chan net.Conn, devices)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for range devices {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if c := strangerAt(h.Address, cluster.Cluster); c != nil {
				conns <- c
			}
		})
	}
	wg.Wait()
	close(conns)
	open := 0
	for c := range conns {
		t.Cleanup(func() { c.Close() }) // all stay open until the known node has got in
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := io.Copy(io.Discard, c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		}
	}
	if open > 64 {
		t.Errorf("%d of %d strangers' connections are kept open, 64 are the limit", open, devices)
	}
	knownNode(t, h, dir, "")()
	if _, err := h.TryKubectl("get", "--raw", "/readyz"); err != nil {
		t.Errorf("the hub: %v", err)
	}
}

// knownNode links a device to the hub, and returns what ends the link.
func knownNode(t *testing.T, h *harness.Hub, dir, token string) (stop func()) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	c, err := cache.Open(link.CacheDir(dir), nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.New(link.Config{Dir: dir, JoinToken: token, NodeName: "known", Cache: c, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done; c.Close() })
	t.Cleanup(stop)
	h.Eventually(20*time.Second, "the node is linked", func() error {
		if s := l.Status(); !s.Connected {
			return errors.New(s.Problem)
		}
		return nil
	})
	return stop
}

// strangerAt makes up a device, connects as it and knocks. Nil when the hub does not even let it connect.
func strangerAt(addr string, cluster jointoken.Cluster) net.Conn {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	static, err := wire.NewStaticKey(rand.Reader)
	if err != nil {
		return nil
	}
	cert, err := wire.DeviceCertificate(priv, static.Public)
	if err != nil {
		return nil
	}
	p := wire.Place{Cluster: cluster.ID, Node: wire.NodeID(wire.Fingerprint(pub, static.Public))}
	_, _ = rand.Read(p.Tag[:])
	init, err := wire.NewInitiator(p, static, cluster.Key, nil)
	if err != nil {
		return nil
	}
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", addr, wire.PinnedTLS(cert, cluster.Pin))
	if err != nil {
		return nil
	}
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }
	packet := func(head byte, body []byte) []byte {
		return append(binary.AppendUvarint([]byte{head}, uint64(len(body))), body...) // MQTT's lengths are varints
	}
	connect := fmt.Appendf(text("MQTT"), "\x04\x02\x00\x3c%s", text(p.Node))
	knock := append(text(wire.UpTopic(p.Cluster, p.Node)), init.Knock()...)
	_, _ = c.Write(packet(0x10, connect))
	_, _ = c.Write(packet(0x30, knock))
	return c
}
