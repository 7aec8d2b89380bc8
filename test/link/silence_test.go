package link_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	agentsession "petrel.dev/petrel/edgeagent/link/session"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/node"
	"petrel.dev/petrel/hub/dispatch"
	"petrel.dev/petrel/hub/dispatch/linkkeys"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// silent is a hub with one node, n1, over a bus that a test can cut as a network does: without a word to either side. All
// runs by the clock of a synctest bubble.
type silent struct {
	t      *testing.T
	client *controltest.Client
	d      *dispatch.Dispatch
	keys   linkkeys.Keys
	device wire.StaticKey
	tls    [32]byte
	id     string
	sees   bool // the bus sees every packet, as the embedded broker does

	mu      sync.Mutex
	receive func(topic string, frame []byte)
	agent   *agentsession.Session
	cache   *wire.Copy
	has     map[wire.ID]bool // what the cache holds
	batch   func()           // called after each batch, when set
	tag     wire.Tag
	epoch   uint64
	hole    bool      // nothing gets through
	hung    bool      // the agent does nothing, but its connection's pings go on
	heard   time.Time // of the bus
	wake    *time.Timer
}

// warm makes what package wire makes at its first use and then shares, outside of any bubble.
var warm sync.Once

// bubble runs f by a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	warm.Do(func() {
		h := newHub(t, "", configMap("large", strings.Repeat("large ", 200))).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		h.client.Put(pod("web", "n1", withConfigMap("large")))
		eventually(t, "a message was compressed", func() bool { return a.has(wire.KindConfigMap, "large") != nil })
		a.kill()
		h.kill()
	})
	synctest.Test(t, f)
}

func newSilent(t *testing.T, sees bool, issuers ...tokens.Issuer) *silent {
	hubKey, err := wire.NewStaticKey(nil2rand{})
	must(t, err)
	device, err := wire.NewStaticKey(nil2rand{})
	must(t, err)
	s := &silent{t: t, sees: sees, device: device, cache: wire.NewCopy(), has: map[wire.ID]bool{}, keys: linkkeys.Keys{ClusterID: "c", Static: hubKey}}
	fp := wire.Fingerprint(s.tls[:], device.Public)
	s.id = wire.NodeID(fp)
	ready := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady"}}}
	s.client = controltest.New(t, &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-n1", Annotations: map[string]string{kube.NodeKeyAnnotation: fp}},
		Status:     ready,
	})
	cfg := dispatch.Config{Client: s.client, Bus: s, Keys: s.keys, Log: logger(t, "dispatch")}
	if len(issuers) > 0 {
		cfg.Tokens = issuers[0]
	}
	s.d, err = dispatch.New(cfg)
	must(t, err)
	ctl, err := node.New(node.Config{Client: s.client, Events: &controltest.Events{}, Presence: s.d, PodCIDR: netip.MustParsePrefix("10.42.0.0/16")})
	must(t, err)
	go func() { _ = s.d.Run(t.Context()) }()
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
	s.connect()
	synctest.Wait()
	s.pass(time.Second) // the last acknowledgements
	if on, _ := s.d.Presence("n1"); !on {
		t.Fatal("n1 did not connect")
	}
	return s
}

// ---- the bus

func (s *silent) Run(ctx context.Context, receive func(string, []byte), connected func(bool)) error {
	s.mu.Lock()
	s.receive = receive
	s.mu.Unlock()
	connected(true)
	<-ctx.Done()
	return ctx.Err()
}

func (s *silent) Publish(_ string, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hole || s.hung || s.agent == nil {
		return
	}
	s.agent.Frame(time.Now(), frame)
	s.drain()
}

func (s *silent) Guard(func(string) bool) {}

func (s *silent) LastSeen(string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sees {
		return time.Time{}
	}
	return s.heard
}

// ---- the node

// connect makes a new connection, as an agent does that has found the old one dead.
func (s *silent) connect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.tag = wire.Tag{byte(s.epoch)}
	var err error
	s.agent, err = agentsession.New(time.Now(), agentsession.Config{
		Place: wire.Place{Cluster: "c", Node: s.id, Tag: s.tag}, Key: s.device, Hub: s.keys.Static.Public,
		Hello: wire.Hello{Epoch: s.epoch, TLSKey: s.tls}, Desired: s.cache, Revision: func() uint64 { return 0 }, Reports: wire.NewSender(),
	})
	must(s.t, err)
	s.drain()
}

// drain does what the agent's session wants done. s.mu is held.
func (s *silent) drain() {
	for again := true; again; {
		out := s.agent.Drain(time.Now())
		again = out.Welcome != nil
		for _, b := range out.Apply {
			s.cache.Apply(b)
			for i := range b.Puts {
				s.has[b.Puts[i].ID] = true
			}
			for _, id := range b.Deletes {
				delete(s.has, id)
			}
			if s.batch != nil {
				s.batch()
			}
			s.agent.Applied(b.Seq, s.cache.Hash())
			again = true
		}
		for _, f := range out.Frames {
			s.up(wire.UpTopic("c", s.id), f)
		}
		if out.End != nil {
			s.agent = nil
			go s.connect()
			return
		}
	}
	if s.wake != nil {
		s.wake.Stop()
	}
	if w := s.agent.Wake(); !w.IsZero() {
		s.wake = time.AfterFunc(time.Until(w), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.agent != nil && !s.hung {
				s.drain()
			}
		})
	}
}

func (s *silent) up(topic string, f []byte) {
	if !s.hole {
		s.heard = time.Now()
		s.receive(topic, f)
	}
}

// pass lets time pass.
func (s *silent) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ping is MQTT's, which frames know nothing of.
func (s *silent) ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hole {
		s.heard = time.Now()
	}
}

func (s *silent) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// lost is the broker's word that the connection is gone.
func (s *silent) lost() {
	s.set(func() { s.agent = nil })
	s.receive(wire.LiveTopic("c", s.id), wire.LiveFrame(s.tag, wire.LastWords{}))
	synctest.Wait()
}

func (s *silent) dark() bool {
	n, ok := control.Get[*corev1.Node](s.client, kube.Node, "", "n1")
	return ok && control.NodeDark(n)
}

func (s *silent) expectDark(want bool, when string) {
	s.t.Helper()
	if got := s.dark(); got != want {
		s.t.Fatalf("%s: dark %v, want %v", when, got, want)
	}
}

// A node that vanished without a word is dark as soon as its connection is found dead: the grace counts from its last
// sign of life, not from when the broker gave it up.
func TestDarkFromTheLastWord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSilent(t, true)
		s.pass(59 * time.Second)
		s.ping()
		s.set(func() { s.hole = true })
		heard := time.Now()
		s.pass(90 * time.Second)
		s.expectDark(false, "before the broker has noticed")
		s.lost()
		s.expectDark(true, "when the broker has noticed")
		if on, last := s.d.Presence("n1"); on || !last.Equal(heard) {
			t.Errorf("presence %v, last heard %v before the cut", on, heard.Sub(last))
		}
		s.set(func() { s.hole = false })
		s.connect()
		synctest.Wait()
		s.expectDark(false, "back")
	})
}

// A node that was just heard of has its grace.
func TestFlap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSilent(t, true)
		s.pass(59 * time.Second)
		s.ping()
		s.pass(5 * time.Second)
		s.lost()
		s.pass(34 * time.Second)
		s.expectDark(false, "39 s after its last word")
		s.pass(2 * time.Second)
		s.expectDark(true, "41 s after its last word")
	})
}

// A broker elsewhere says only that a connection is gone, so until then its node counts as heard.
func TestFlapBehindABlindBus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSilent(t, false)
		s.pass(time.Hour)
		s.lost()
		s.pass(39 * time.Second)
		s.expectDark(false, "39 s after its connection's end")
		s.pass(2 * time.Second)
		s.expectDark(true, "41 s after its connection's end")
	})
}

// With something to be said to the node, its silence is noticed before the broker notices; and when the network heals, it
// comes back although nothing has told it that the hub had given it up.
func TestSilenceIsNoticedWhenSomethingIsAsked(t *testing.T) {
	for _, sees := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			s := newSilent(t, sees)
			s.pass(30 * time.Second)
			s.set(func() { s.hole = true })
			s.pass(10 * time.Second)
			s.client.Put(pod("web", "n1"))
			s.pass(39 * time.Second)
			s.expectDark(false, "39 s after the pod was sent")
			s.pass(2 * time.Second)
			s.expectDark(true, "41 s after the pod was sent")
			s.set(func() { s.hole = false })
			s.pass(2 * time.Minute)
			s.expectDark(false, "when the hub was heard again")
			s.pass(time.Hour)
			s.expectDark(false, "an hour later")
		})
	}
}

// An agent that is busy for a minute, say with a card that stalls, is not taken for gone while its connection lives.
func TestSlowAgentIsNotDark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSilent(t, true)
		s.set(func() { s.hung = true })
		s.client.Put(pod("web", "n1"))
		for range 4 {
			s.pass(30 * time.Second)
			s.ping()
		}
		s.expectDark(false, "after two minutes of pings alone")
		s.set(func() { s.hung = false })
		s.pass(time.Minute)
		s.expectDark(false, "when it goes on")
	})
}

// The embedded broker knows when it last heard of a node, by pings too, also when it gives the node up.
func TestBrokerKnowsTheLastWord(t *testing.T) {
	h := newHub(t, "").start()
	a := newAgent(t, "n1", h.token(jointoken.Options{}))
	a.ka = 2 * time.Second
	a.start()
	h.waitConnected("n1")
	joined := time.Now()
	eventually(t, "pings are heard on an idle link", func() bool {
		_, last := h.d.Presence("n1")
		return last.After(joined.Add(3*time.Second)) && last.Before(time.Now().Add(-100*time.Millisecond))
	})
	h.hole.Store(true)
	cut := time.Now().Add(time.Second) // what was on its way may still come, well before the broker gives the node up
	eventually(t, "the broker gives the node up", func() bool { return !h.connected("n1") })
	if _, last := h.d.Presence("n1"); last.IsZero() || last.After(cut) {
		t.Errorf("last heard %v after the cut", last.Sub(cut))
	}
	h.hole.Store(false)
	h.waitConnected("n1")
}
