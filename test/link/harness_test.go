// Package link_test runs both ends of the link against each other, over the embedded broker and over Mosquitto.
package link_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/link"
	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/broker"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/dispatch"
	"petrel.dev/petrel/hub/dispatch/linkkeys"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// logger writes to the test's log when LINK_LOG is set.
func logger(t testing.TB, who string) *slog.Logger {
	var w io.Writer = io.Discard
	if os.Getenv("LINK_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", who)
}

// hub is a hub's link side on a fake store.
type hub struct {
	t       testing.TB
	client  *controltest.Client
	keys    linkkeys.Keys
	cert    tls.Certificate
	pin     wire.Pin
	addr    string // of the port, kept over restarts
	url     string // of an external broker
	tokens  *issuer
	d       *dispatch.Dispatch
	stop    func()
	publish func(topic string, frame []byte)
	history string // of the store
	mu      sync.Mutex
	bytesIn func(n int) // counts what comes in and goes out on the port, when set
	hole    atomic.Bool // swallows everything on the port, both ways, without closing a connection
}

func newHub(t testing.TB, brokerURL string, objs ...kube.Object) *hub {
	t.Helper()
	keys, err := linkkeys.Load(filepath.Join(t.TempDir(), "link-keys"))
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, NotAfter: time.Unix(1, 0)} // expired since 1970
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	h := &hub{
		t: t, client: controltest.New(t, objs...), keys: keys, url: brokerURL, tokens: &issuer{life: time.Hour},
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pin: wire.PinOf(leaf), addr: "127.0.0.1:0", history: "first",
	}
	t.Cleanup(func() { h.kill() })
	return h
}

// start runs the hub; kill ends it, as a crash or a stop does.
func (h *hub) start() *hub {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var bus dispatch.Bus
	var wg sync.WaitGroup
	if h.url != "" {
		ext, err := broker.NewExternal(broker.ExternalConfig{URL: h.url, Cluster: h.keys.ClusterID, Log: logger(h.t, "bus")})
		must(h.t, err)
		bus = ext
	} else {
		b, err := broker.New(broker.Config{Cluster: h.keys.ClusterID, Log: logger(h.t, "broker")})
		must(h.t, err)
		bus = b
		ln, err := net.Listen("tcp", h.addr)
		must(h.t, err)
		h.addr = ln.Addr().String()
		wg.Go(func() { h.accept(ln, b) })
		context.AfterFunc(ctx, func() { ln.Close() })
	}
	h.publish = bus.Publish
	var err error
	h.d, err = dispatch.New(dispatch.Config{
		Client: h.client, Bus: bus, Tokens: h.tokens, Keys: h.keys, Log: logger(h.t, "dispatch"),
		Settings: wire.Settings{ServiceCIDR: kube.DefaultServiceCIDR},
		History:  func() (string, uint64) { return h.history, h.client.Revision() },
	})
	must(h.t, err)
	d := h.d
	wg.Go(func() {
		if err := d.Run(ctx); err != nil && ctx.Err() == nil {
			h.t.Errorf("dispatch: %v", err)
		}
	})
	h.stop = func() { cancel(); wg.Wait() }
	return h
}

func (h *hub) accept(ln net.Listener, b *broker.Broker) {
	cfg := broker.ServerTLS(&tls.Config{Certificates: []tls.Certificate{h.cert}})
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			tc := tls.Server(&counted{c, h}, cfg)
			if tc.Handshake() != nil {
				c.Close()
				return
			}
			b.ServeConn(tc)
		}()
	}
}

type counted struct {
	net.Conn
	h *hub
}

func (c *counted) count(n int) {
	c.h.mu.Lock()
	f := c.h.bytesIn
	c.h.mu.Unlock()
	if f != nil {
		f(n)
	}
}
func (c *counted) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.h.hole.Load() {
			c.count(n)
			return n, err
		}
	}
}

func (c *counted) Write(b []byte) (int, error) {
	if c.h.hole.Load() {
		return len(b), nil
	}
	n, err := c.Conn.Write(b)
	c.count(n)
	return n, err
}

func (h *hub) kill() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// token makes a join token.
func (h *hub) token(o jointoken.Options) string {
	h.t.Helper()
	tok, secret, err := jointoken.Mint(jointoken.Cluster{
		ID: h.keys.ClusterID, Addresses: []string{h.addr}, Pin: h.pin, Key: h.keys.Static.Public, Broker: h.url,
	}, o, time.Now(), nil)
	must(h.t, err)
	h.client.Put(secret)
	return tok.String()
}

// issuer makes tokens that say when they were made.
type issuer struct {
	mu   sync.Mutex
	made int
	life time.Duration
	gate chan struct{} // tokens are made once it is closed; nil: at once
}

// block has no token made until the returned function is called.
func (i *issuer) block() (release func()) {
	gate := make(chan struct{})
	i.mu.Lock()
	defer i.mu.Unlock()
	i.gate = gate
	return func() { close(gate) }
}

func (i *issuer) IssueToken(_ context.Context, sa *corev1.ServiceAccount, to satoken.Bound, aud []string, _ time.Duration) (string, time.Time, error) {
	i.mu.Lock()
	gate := i.gate
	i.mu.Unlock()
	if gate != nil {
		<-gate
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made++
	return fmt.Sprintf("token %d of %s for %s", i.made, sa.Name, to.Pod.Name), time.Now().Add(i.life), nil
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.made
}

// agent is a device.
type agent struct {
	t     testing.TB
	dir   string
	name  string
	token string
	serve func(context.Context, wire.StreamRequest, wire.Stream)
	cache *cache.Cache
	link  *link.Link
	err   error // of New
	stop  func()
	ka    time.Duration
	// joined is called as link.Config.Joined, from the link's goroutine; set before start.
	joined func()
}

func newAgent(t testing.TB, name, token string) *agent {
	a := &agent{t: t, dir: t.TempDir(), name: name, token: token}
	t.Cleanup(a.kill)
	return a
}

func (a *agent) start() *agent {
	a.t.Helper()
	var err error
	a.cache, err = cache.Open(link.CacheDir(a.dir), nil, logger(a.t, a.name))
	must(a.t, err)
	a.link, a.err = link.New(link.Config{
		Dir: a.dir, JoinToken: a.token, NodeName: a.name, Cache: a.cache, Serve: a.serve, Joined: a.joined, Keepalive: a.ka,
		Build: "test", Log: logger(a.t, a.name), Labels: map[string]string{"zone": "a"},
	})
	must(a.t, a.err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	l := a.link
	go func() { defer close(done); _ = l.Run(ctx) }()
	a.stop = func() { cancel(); <-done; a.cache.Close() }
	return a
}

func (a *agent) kill() {
	if a.stop != nil {
		a.stop()
		a.stop = nil
	}
}

// has reports whether the desired set has an object of that kind and name.
func (a *agent) has(kind wire.Kind, name string) *wire.Object {
	for _, o := range a.cache.Desired() {
		if o.Kind == kind && o.Name == name {
			return &o
		}
	}
	return nil
}

func (a *agent) report(kind wire.Kind, uid, ns, name string, v any) {
	a.t.Helper()
	b, err := json.Marshal(v)
	must(a.t, err)
	must(a.t, a.cache.Report(wire.Object{ID: wire.ID{Kind: kind, UID: uid}, Namespace: ns, Name: name, Data: b}))
}

func (a *agent) podStatus(p *corev1.Pod, phase corev1.PodPhase) {
	a.t.Helper()
	b, err := json.Marshal(corev1.PodStatus{Phase: phase})
	must(a.t, err)
	a.report(wire.KindPodStatus, string(p.UID), p.Namespace, p.Name, wire.PodReport{Namespace: p.Namespace, Name: p.Name, Status: b})
}

func (a *agent) podGone(p *corev1.Pod) {
	a.t.Helper()
	a.report(wire.KindPodStatus, string(p.UID), p.Namespace, p.Name, wire.PodReport{Namespace: p.Namespace, Name: p.Name, Gone: true})
}

// eventually waits until f holds. The limit only bounds a failing test.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(2 * time.Minute); !f(); {
		if time.Now().After(limit) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pod(name, node string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	for _, f := range edit {
		f(p)
	}
	return p
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": value},
	}
}

func withConfigMap(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
		}})
	}
}

func withToken(p *corev1.Pod) {
	p.Spec.ServiceAccountName = "default"
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}},
	}})
}

func (h *hub) pod(name string) *corev1.Pod {
	p, _ := control.Get[*corev1.Pod](h.client, kube.Pod, "default", name)
	return p
}

func (h *hub) connected(node string) bool { ok, _ := h.d.Presence(node); return ok }

func (h *hub) waitConnected(node string) {
	h.t.Helper()
	eventually(h.t, node+" is connected", func() bool { return h.connected(node) })
}

// randomHex is text that hardly compresses.
func randomHex(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b)
	return fmt.Sprintf("%x", b)
}
