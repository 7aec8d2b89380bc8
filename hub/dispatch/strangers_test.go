package dispatch

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/dispatch/linkkeys"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// bus hands frames over in memory, and keeps the hub's challenges by topic and session.
type bus struct {
	mu      sync.Mutex
	receive func(string, []byte)
	said    map[string][]byte
	ready   chan struct{}
}

func (b *bus) Publish(topic string, frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if typ, tag, err := wire.Peek(frame); err == nil && typ == wire.FrameChallenge {
		b.said[topic+string(tag[:])] = frame
	}
}

func (b *bus) Run(ctx context.Context, receive func(string, []byte), connected func(bool)) error {
	b.receive = receive
	close(b.ready)
	connected(true)
	<-ctx.Done()
	return ctx.Err()
}

func (b *bus) LastSeen(string) time.Time { return time.Time{} }
func (b *bus) Guard(func(string) bool)   {}

// challenge is the hub's to a device's knock; nil when there is none yet.
func (b *bus) challenge(d *device) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said[wire.DownTopic(d.place.Cluster, d.place.Node)+string(d.place.Tag[:])]
}

// device is a device that speaks frames.
type device struct {
	key   wire.StaticKey
	hello wire.Hello
	place wire.Place
	init  *wire.Initiator
}

func newDevice(t *testing.T, keys linkkeys.Keys) *device {
	t.Helper()
	key, err := wire.NewStaticKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{key: key, hello: wire.Hello{Version: wire.Version, Epoch: 1}}
	_, _ = rand.Read(d.hello.TLSKey[:])
	d.place = wire.Place{Cluster: keys.ClusterID, Node: wire.NodeID(d.fingerprint())}
	_, _ = rand.Read(d.place.Tag[:])
	if d.init, err = wire.NewInitiator(d.place, key, keys.Static.Public, nil); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *device) fingerprint() string { return wire.Fingerprint(d.hello.TLSKey[:], d.key.Public) }
func (d *device) up() string          { return wire.UpTopic(d.place.Cluster, d.place.Node) }

func (d *device) node(name string) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{kube.NodeKeyAnnotation: d.fingerprint()}}}
}

// hubOf runs a Dispatch with the devices as its Nodes.
func hubOf(t *testing.T, keys linkkeys.Keys, nodes ...kube.Object) (*Dispatch, *bus) {
	t.Helper()
	b := &bus{said: map[string][]byte{}, ready: make(chan struct{})}
	d, err := New(Config{Client: controltest.New(t, nodes...), Bus: b, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-b.ready
	return d, b
}

// join goes through the handshake, and waits until the hub counts the device as connected.
func (d *device) join(t *testing.T, hub *Dispatch, b *bus, name string) {
	t.Helper()
	b.receive(d.up(), d.init.Knock())
	within(t, "the hub answers the knock of "+name, func() bool { return b.challenge(d) != nil })
	hello, _, err := d.init.Challenge(b.challenge(d), &d.hello)
	if err != nil {
		t.Fatal(err)
	}
	b.receive(d.up(), hello)
	within(t, name+" is connected", func() bool { ok, _ := hub.Presence(name); return ok })
}

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func newKeys(t *testing.T) linkkeys.Keys {
	t.Helper()
	keys, err := linkkeys.Load(t.TempDir() + "/link.json")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// However many devices a stranger makes up, those that the hub knows have room of their own.
func TestStrangersDoNotLockOutKnownDevices(t *testing.T) {
	keys := newKeys(t)
	known := newDevice(t, keys)
	hub, b := hubOf(t, keys, known.node("n1"))
	for range 4500 {
		s := newDevice(t, keys)
		b.receive(s.up(), s.init.Knock())
	}
	state := func() (nodes, pending int) {
		got := make(chan [2]int)
		hub.call(func(time.Time) { got <- [2]int{len(hub.nodes), len(hub.pending)} })
		v := <-got
		return v[0], v[1]
	}
	if nodes, pending := state(); nodes > maxStrangers || pending > maxStrangers || pending == 0 {
		t.Errorf("%d devices, %d of them strangers, are kept; %d are the limit", nodes, pending, maxStrangers)
	}
	known.join(t, hub, b, "n1")
	if _, pending := state(); pending > maxStrangers {
		t.Errorf("%d strangers", pending)
	}
}

// TestJoinsAreNotStrangersKnocks checks that devices with a good token join one after the other without waiting for the budget
// of handshakes that strangers have.
func TestJoinsAreNotStrangersKnocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := newKeys(t)
		token, secret, err := jointoken.Mint(jointoken.Cluster{ID: keys.ClusterID, Addresses: []string{"hub:6443"}, Key: keys.Static.Public}, jointoken.Options{TTL: time.Hour}, time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		secret.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
		hub, b := hubOf(t, keys, secret)
		const many = 4 * 128
		began := time.Now()
		for i := range many {
			d, name := newDevice(t, keys), fmt.Sprint("n", i)
			d.hello.Node, d.hello.TokenID, d.hello.Secret = name, token.TokenID, token.Secret
			d.join(t, hub, b, name)
		}
		if took := time.Since(began); took > 2*time.Second { // in the bubble's time: each join has some sleeps of 1 ms
			t.Errorf("%d devices took %v to join", many, took)
		}
	})
}

// Others who may publish on a device's topics fill its room with handshakes that lead nowhere; its own still gets through.
func TestFalseKnocksDoNotLockADeviceOut(t *testing.T) {
	keys := newKeys(t)
	known := newDevice(t, keys)
	hub, b := hubOf(t, keys, known.node("n1"))
	for range 50 {
		p := known.place
		_, _ = rand.Read(p.Tag[:])
		key, err := wire.NewStaticKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		i, err := wire.NewInitiator(p, key, keys.Static.Public, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.receive(known.up(), i.Knock())
	}
	known.join(t, hub, b, "n1")
	// Nor can others say its last words.
	b.receive(wire.LiveTopic(keys.ClusterID, known.place.Node), wire.LiveFrame(wire.Tag{9}, wire.LastWords{}))
	if ok, _ := hub.Presence("n1"); !ok {
		t.Error("the session ended by another's words")
	}
}

// Last words that lack the secret of the hello end no session.
func TestForgedLastWords(t *testing.T) {
	keys := newKeys(t)
	known := newDevice(t, keys)
	secret := wire.LastWords{1, 2, 3}
	known.hello.Live = secret.Hash()
	hub, b := hubOf(t, keys, known.node("n1"))
	known.join(t, hub, b, "n1")
	live := wire.LiveTopic(keys.ClusterID, known.place.Node)
	b.receive(live, wire.LiveFrame(known.place.Tag, wire.LastWords{}))
	b.receive(live, wire.LiveFrame(known.place.Tag, secret)[:5])
	done := make(chan struct{})
	hub.call(func(time.Time) {})
	hub.call(func(time.Time) { hub.call(func(time.Time) { close(done) }) })
	<-done
	if ok, _ := hub.Presence("n1"); !ok {
		t.Fatal("forged last words ended the session")
	}
	b.receive(live, wire.LiveFrame(known.place.Tag, secret))
	within(t, "the device's own words end it", func() bool { ok, _ := hub.Presence("n1"); return !ok })
}

// A panic over one device's frame costs that device its session; the others keep theirs, and it may come again.
func TestPanicOverADeviceIsThatDevices(t *testing.T) {
	for _, site := range []string{"dispatch/frame", "dispatch/node"} {
		t.Run(site, func(t *testing.T) {
			keys := newKeys(t)
			one, two := newDevice(t, keys), newDevice(t, keys)
			hub, b := hubOf(t, keys, one.node("n1"), two.node("n2"))
			one.join(t, hub, b, "n1")
			two.join(t, hub, b, "n2")
			remove := contain.Inject(func(s, key string) {
				if s == site && key == two.place.Node {
					panic("poison")
				}
			})
			b.receive(two.up(), two.init.Knock())
			hub.cfg.Client.(*controltest.Client).Put(&corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n2"}})
			within(t, "the device loses its session", func() bool { ok, _ := hub.Presence("n2"); return !ok })
			remove()
			if ok, _ := hub.Presence("n1"); !ok {
				t.Error("the other device lost its session too")
			}
			again := newDevice(t, keys)
			again.key, again.hello = two.key, two.hello
			again.hello.Epoch = 2
			again.place.Node = two.place.Node
			var err error
			if again.init, err = wire.NewInitiator(again.place, again.key, keys.Static.Public, nil); err != nil {
				t.Fatal(err)
			}
			again.join(t, hub, b, "n2")
		})
	}
}

// What comes back to the loop for a device ends, if it panics, that device's session: it must not wait for an answer.
func TestPanicInACallOnADeviceIsThatDevices(t *testing.T) {
	keys := newKeys(t)
	one, two := newDevice(t, keys), newDevice(t, keys)
	hub, b := hubOf(t, keys, one.node("n1"), two.node("n2"))
	one.join(t, hub, b, "n1")
	two.join(t, hub, b, "n2")
	hub.call(func(time.Time) {
		hub.callOn(hub.byName["n2"], func(time.Time) { panic("poison") })
	})
	within(t, "the device loses its session", func() bool { ok, _ := hub.Presence("n2"); return !ok })
	if ok, _ := hub.Presence("n1"); !ok {
		t.Error("the other device lost its session too")
	}
}

// poisoned is a cache that panics over Nodes.
type poisoned struct{ control.Client }

func (p poisoned) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	if gvk == kube.Node {
		panic("poison")
	}
	return p.Client.Get(gvk, namespace, name)
}

// A panic while a stream is opened is an answer to who waits for the stream.
func TestPanicWhileAStreamIsOpened(t *testing.T) {
	hub, _ := hubOf(t, newKeys(t))
	hub.call(func(time.Time) { hub.cfg.Client = poisoned{hub.cfg.Client} })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := hub.OpenStream(ctx, "n1", wire.StreamRequest{}); !apierrors.IsInternalError(err) {
		t.Errorf("%v", err)
	}
}
