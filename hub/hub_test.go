package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"petrel.dev/petrel/internal/wire"
)

func validConfig() Config {
	return Config{
		DataDir: "x", Listen: ":6443", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
	}
}

// A wrong setting is refused by the name of its flag.
func TestConfigNamesTheFlag(t *testing.T) {
	if c := validConfig(); c.check() != nil {
		t.Fatal(c.check())
	}
	for want, spoil := range map[string]func(*Config){
		"--data-dir":                  func(c *Config) { c.DataDir = "" },
		`--listen "6443"`:             func(c *Config) { c.Listen = "6443" },
		`--advertise "https://hub"`:   func(c *Config) { c.Advertise = []string{"https://hub"} },
		"--cluster-cidr":              func(c *Config) { c.ClusterCIDR = netip.MustParsePrefix("10.42.0.1/16") },
		"smaller than the /24":        func(c *Config) { c.ClusterCIDR = netip.MustParsePrefix("10.42.0.0/25") },
		"--service-cidr 10.43.0.0/30": func(c *Config) { c.ServiceCIDR = netip.MustParsePrefix("10.43.0.0/30") },
		"only IPv4":                   func(c *Config) { c.ServiceCIDR = netip.MustParsePrefix("fd00::/112") },
		"overlap":                     func(c *Config) { c.ServiceCIDR = netip.MustParsePrefix("10.42.1.0/24") },
	} {
		c := validConfig()
		spoil(&c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// What others stand on stops after them, whether the end comes from outside or from one of them.
func TestLayersStopFromTheTop(t *testing.T) {
	broken := errors.New("broken")
	for name, fails := range map[string]int{"told to stop": -1, "the lowest fails": 0, "the highest fails": 2} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			var order []int
			up := make(chan struct{}, 3)
			layer := func(i int) func(context.Context) error {
				return func(ctx context.Context) error {
					up <- struct{}{}
					if i == fails {
						return broken
					}
					<-ctx.Done()
					mu.Lock()
					defer mu.Unlock()
					order = append(order, i)
					return ctx.Err()
				}
			}
			done := make(chan error)
			go func() { done <- (&Hub{}).layers(ctx, layer(0), layer(1), layer(2)) }()
			for range 3 {
				<-up
			}
			if fails < 0 {
				cancel()
			}
			err := <-done
			cancel()
			if (fails >= 0) != errors.Is(err, broken) {
				t.Errorf("ended with %v", err)
			}
			want := slices.DeleteFunc([]int{2, 1, 0}, func(i int) bool { return i == fails })
			if !slices.Equal(order, want) {
				t.Errorf("stopped in the order %v, want %v", order, want)
			}
		})
	}
}

// One port serves the API and the link: the client's protocol list tells which. A link without a certificate is refused.
func TestPortTellsLinkFromAPI(t *testing.T) {
	cert := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	linked := make(chan net.Conn, 1)
	p := newPort(l, &tls.Config{Certificates: []tls.Certificate{cert}}, func(c net.Conn) { linked <- c }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	go http.Serve(p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))

	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "HTTP/2.0" {
		t.Errorf("the API answered %q", body)
	}

	link := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{cert}}
	conn, err := tls.Dial("tcp", l.Addr().String(), link)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(<-linked).Close()

	bare := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}}
	if conn, err := tls.Dial("tcp", l.Addr().String(), bare); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a link without a certificate was let in")
		}
		conn.Close()
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("the port ended with %v", err)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
