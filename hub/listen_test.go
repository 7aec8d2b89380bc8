package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/wire"
)

// Three hundred agents behind one address connect before any of them says a word, as after a restart of the hub over a link
// that is slow. Each gets through.
func TestAFleetConnectsAtOnce(t *testing.T) {
	t.Parallel()
	pki, err := auth.LoadPKI(filepath.Join(t.TempDir(), "pki"), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newPort(l, pki.ServerTLS(), func(c net.Conn) {
		_, _ = c.Write([]byte("+"))
		c.Close()
	}, slog.New(slog.DiscardHandler))
	p.lobby.minStay = time.Minute // how fast this machine is does not matter
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = p.Run(ctx) }()

	const agents = 300
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pki.CA())
	cfg := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{wire.ALPN}, ServerName: "127.0.0.1"}
	var conns []net.Conn
	for range agents {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	var wg sync.WaitGroup
	var through atomic.Int32
	for _, c := range conns {
		wg.Go(func() {
			if n, _ := tls.Client(c, cfg).Read(make([]byte, 1)); n == 1 {
				through.Add(1)
			}
		})
	}
	wg.Wait()
	if n := through.Load(); n != agents {
		t.Errorf("%d of %d got through", n, agents)
	}
}
