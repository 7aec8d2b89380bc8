package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// messages has one of each kind, with every field set.
var messages = []Message{
	&Welcome{Version: 1, Node: "n1", Up: Hash{1, 2}, Revision: 77, Addresses: []string{"hub:6443", "10.0.0.1:6443"},
		Settings: Settings{PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", DNSAddress: "10.43.0.10", ClusterDomain: "cluster.local"}, History: "h1"},
	&Refuse{Code: CodeEpoch, Message: "too old", Epoch: 9, Revision: 300, History: "h1"},
	&NeedMap{},
	&Have{Entries: []Entry{{ID{KindPod, "u1"}, 5}, {ID{"Strange", "u2"}, 1 << 63}}},
	&Batch{Seq: 3, Revision: 78, Hash: Hash{3, 4},
		Puts:    []Put{{Object: Object{ID: ID{KindSecret, "u3"}, Version: 6, Namespace: "ns", Name: "s", Data: []byte("{}")}}, {Object: Object{ID: ID{KindEvent, "u4"}, Version: 7, Data: []byte("x")}, Once: true}},
		Deletes: []ID{{KindPeer, "u5"}}},
	&Batch{Seq: 4, Puts: []Put{{Object: Object{ID: ID{KindImage, "nginx:1"}, Version: 8, Data: []byte(`{"platforms":["arm/v7"]}`)}}}, Deletes: []ID{{KindImage, "old"}}},
	&Batch{Seq: 5, Puts: []Put{{Object: Object{ID: ID{KindPod, "u6"}, Version: 9, Data: []byte("{}")}}}, Rounds: [][]byte{goldenRound().bytes(), {}}},
	&Applied{Seq: 3, Hash: Hash{3, 4}},
	&Open{Stream: "abc", Key: [32]byte{1, 2, 3}, Request: []byte("{}")},
	&Ping{}, &Pong{},
	&Bye{Code: CodeRemoved, Message: "deleted"},
	&Complete{Hash: Hash{7, 8}},
}

// goldenRound puts, changes and removes an object each.
func goldenRound() *Round {
	content := func(uid string, n ...int) *Object {
		o := &Object{ID: ID{KindService, uid}, Namespace: "ns", Name: uid, Data: list(n)}
		o.Version = ContentVersion(o)
		return o
	}
	c := NewShared()
	c.Put(content("changed", 1, 2, 3))
	c.Put(content("gone"))
	c.Cut()
	c.Put(content("new", 4))
	c.Put(content("changed", 1, 3, 5))
	c.Remove(ID{KindService, "gone"})
	return c.Cut()
}

var hello = &Hello{
	Version: 1, Epoch: 12, Instance: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, TLSKey: [32]byte{9}, Node: "n1",
	Labels: map[string]string{"b": "2", "a": "1"}, Taints: []byte("[]"), TokenID: "id", Secret: "s3cret",
	Down: Hash{5, 6}, Revision: 76, Keepalive: 60, Build: "v0", Live: LastWords{1}.Hash(),
}

// The bytes of messages are the protocol: this test fails when they change, and then Version and its history must too.
func TestGolden(t *testing.T) {
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "%T %s\n", m, hex.EncodeToString(Encode(m)))
	}
	fmt.Fprintf(&b, "%T %s\n", hello, hex.EncodeToString(encodeHello(hello)))
	for _, f := range goldenFrames(t) {
		fmt.Fprintf(&b, "frame %s\n", hex.EncodeToString(f))
	}
	golden(t, "messages.txt", b.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (run with -update after changing the protocol on purpose):\n%s", path, d)
	}
}

// detRand is a repeatable source of keys.
type detRand struct{ n byte }

func (r *detRand) Read(b []byte) (int, error) {
	for i := range b {
		r.n++
		b[i] = r.n
	}
	return len(b), nil
}

// pair is both ends of a finished handshake.
func pair(t testing.TB, frames *[][]byte) (agent, hub *Pipe, got *Hello, static PublicKey) {
	t.Helper()
	hk, err := NewStaticKey(&detRand{1})
	check(t, err)
	dk, err := NewStaticKey(&detRand{101})
	check(t, err)
	p := Place{"c", "n", Tag{1, 2, 3, 4}}
	i, err := NewInitiator(p, dk, hk.Public, &detRand{11})
	check(t, err)
	r, err := NewResponder(p, hk, i.Knock(), &detRand{22})
	check(t, err)
	hf, agent, err := i.Challenge(r.Challenge(), hello)
	check(t, err)
	got, static, hub, err = r.Hello(hf)
	check(t, err)
	if static != dk.Public {
		t.Fatal("the hub learned another static key")
	}
	if frames != nil {
		*frames = append(*frames, i.Knock(), r.Challenge(), hf)
	}
	return agent, hub, got, static
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func goldenFrames(t *testing.T) [][]byte {
	var frames [][]byte
	agent, hub, got, _ := pair(t, &frames)
	if d := cmp.Diff(hello, got); d != "" {
		t.Fatalf("hello:\n%s", d)
	}
	now := time.Unix(0, 0)
	hub.Send(messages[0])
	out, err := hub.Flush(now)
	check(t, err)
	frames = append(frames, out...)
	if _, err := agent.Receive(now, out[0]); err != nil {
		t.Fatal(err)
	}
	out, err = agent.Flush(now.Add(ackDelay))
	check(t, err)
	return append(frames, out...)
}

func TestRoundTrip(t *testing.T) {
	for _, m := range messages {
		got, err := Decode(Encode(m))
		check(t, err)
		if d := cmp.Diff(m, got); d != "" {
			t.Errorf("%T:\n%s", m, d)
		}
		// A later version appends fields.
		if got, err = Decode(append(Encode(m), 1, 2, 3)); err != nil || !cmp.Equal(m, got) {
			t.Errorf("%T with unknown fields: %v", m, err)
		}
		for b := Encode(m); len(b) > 1; {
			b = b[:len(b)-1]
			if got, err := Decode(b); err == nil && cmp.Equal(m, got) {
				t.Errorf("%T cut short is still whole", m)
			}
		}
	}
}

// Messages of version 1 are shorter: what they lack is empty.
func TestMessagesOfVersion1(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "messages-1.txt"))
	check(t, err)
	got := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "frame" {
			continue
		}
		raw, err := hex.DecodeString(text)
		check(t, err)
		got[kind] = true
		if kind == "*wire.Hello" {
			h, err := decodeHello(raw)
			if err != nil || h.Build != hello.Build || h.Live != ([32]byte{}) {
				t.Errorf("hello: %+v, %v", h, err)
			}
			continue
		}
		m, err := Decode(raw)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		switch m := m.(type) {
		case *Welcome:
			if m.Node != "n1" || m.Settings.ClusterDomain != "cluster.local" || m.History != "" {
				t.Errorf("%+v", m)
			}
		case *Refuse:
			if m.Revision != 300 || m.History != "" {
				t.Errorf("%+v", m)
			}
		}
	}
	if len(got) < 11 {
		t.Errorf("only %d kinds read", len(got))
	}
}

// Only who knows the secret can say a connection's last words; those of version 1 are anybody's.
func TestLastWords(t *testing.T) {
	secret := LastWords{1, 2, 3}
	frame := LiveFrame(Tag{1, 2, 3, 4}, secret)
	for _, c := range []struct {
		frame []byte
		hash  [32]byte
		want  bool
	}{
		{frame, secret.Hash(), true},
		{LiveFrame(Tag{1, 2, 3, 4}, LastWords{}), secret.Hash(), false},
		{frame[:5], secret.Hash(), false},
		{append(frame[:len(frame):len(frame)], 0), secret.Hash(), false},
		{frame[:5], [32]byte{}, true},
	} {
		if got := LastWordsMatch(c.frame, c.hash); got != c.want {
			t.Errorf("frame % x: %v", c.frame, got)
		}
	}
	if typ, tag, err := Peek(frame); typ != FrameLive || tag != (Tag{1, 2, 3, 4}) || err != nil {
		t.Error(typ, tag, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages {
		f.Add(Encode(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(Encode(m))
		if err != nil || !cmp.Equal(m, again) {
			t.Errorf("%T is not the same after a round trip: %v", m, err)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(encodeHello(hello))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err == nil && len(h.Labels) > len(b) {
			t.Error("more labels than bytes")
		}
	})
}

func FuzzReceive(f *testing.F) {
	for _, x := range [][]byte{{}, {4, 1, 2, 3, 4, 0}, {5, 1, 2, 3, 4, 0xff, 0xff}, NudgeFrame(Tag{})} {
		f.Add(x)
	}
	agent, _, _, _ := pair(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := Peek(b); err != nil {
			return
		}
		if msgs, _ := agent.Receive(time.Unix(0, 0), b); len(msgs) > 0 {
			t.Errorf("a forged frame was taken: %v", msgs)
		}
	})
}

// Nothing but the peer's own frame of this session is taken, and each only once.
func TestSeal(t *testing.T) {
	now := time.Unix(0, 0)
	agent, hub, _, _ := pair(t, nil)
	hub.Send(&Ping{})
	hub.Send(&Pong{})
	out, err := hub.Flush(now)
	check(t, err)
	for i := range out[0] {
		bad := bytes.Clone(out[0])
		bad[i] ^= 1
		if msgs, _ := agent.Receive(now, bad); len(msgs) > 0 {
			t.Fatalf("frame with byte %d changed was taken", i)
		}
	}
	if msgs, err := hub.Receive(now, out[0]); len(msgs) > 0 || !errors.Is(err, ErrSeal) {
		t.Errorf("own frame sent back: %v, %v", msgs, err)
	}
	msgs, err := agent.Receive(now, out[1]) // early
	if len(msgs) > 0 || err != nil {
		t.Errorf("frame before its turn: %v, %v", msgs, err)
	}
	if msgs, err = agent.Receive(now, out[0]); len(msgs) != 2 || err != nil {
		t.Errorf("both in order: %v, %v", msgs, err)
	}
	for _, f := range out {
		if msgs, err = agent.Receive(now, f); len(msgs) > 0 || err != nil {
			t.Errorf("replayed frame: %v, %v", msgs, err)
		}
	}
	other := Place{"c", "other", Tag{1, 2, 3, 4}}
	hk, _ := NewStaticKey(&detRand{1})
	dk, _ := NewStaticKey(&detRand{101})
	i, err := NewInitiator(Place{"c", "n", Tag{1, 2, 3, 4}}, dk, hk.Public, nil)
	check(t, err)
	if _, err := NewResponder(other, hk, i.Knock(), nil); !errors.Is(err, ErrSeal) {
		t.Errorf("knock moved to another node: %v", err)
	}
	wrong, _ := NewStaticKey(&detRand{77})
	if _, err := NewResponder(Place{"c", "n", Tag{1, 2, 3, 4}}, wrong, i.Knock(), nil); !errors.Is(err, ErrSeal) {
		t.Errorf("knock at another hub: %v", err)
	}
}

// Whatever a net does to frames, messages come out as they went in: each once, in order; and in bounded flight.
func TestPipeProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		agent, hub, _, _ := pair(t, nil)
		now := time.Unix(0, 0)
		var sent, got [2][]string
		var net [2][][]byte
		ends := [2]*Pipe{agent, hub}
		flush := func() {
			for i, p := range ends {
				out, err := p.Flush(now)
				if err != nil {
					rt.Fatal(err)
				}
				if len(p.flight) > Window {
					rt.Fatal("window exceeded")
				}
				net[i] = append(net[i], out...)
			}
		}
		deliver := func(from, i int) {
			msgs, err := ends[1-from].Receive(now, net[from][i])
			if err != nil {
				rt.Fatal(err)
			}
			for _, m := range msgs {
				got[from] = append(got[from], m.(*Bye).Message)
			}
		}
		steps := rapid.IntRange(0, 60).Draw(rt, "steps")
		for range steps {
			from := rapid.IntRange(0, 1).Draw(rt, "end")
			switch n := len(net[from]); rapid.IntRange(0, 5).Draw(rt, "do") {
			case 0:
				size := rapid.SampledFrom([]int{0, 10, 300, pieceSize, 3 * pieceSize}).Draw(rt, "size")
				text := fmt.Sprint(len(sent[from]), randomText(size, len(sent[from])))
				sent[from] = append(sent[from], text)
				ends[from].Send(&Bye{Message: text})
				flush()
			case 1, 2:
				if n > 0 {
					i := rapid.IntRange(0, n-1).Draw(rt, "frame")
					deliver(from, i)
					if rapid.Bool().Draw(rt, "once") {
						net[from] = slices.Delete(net[from], i, i+1)
					}
				}
			case 3:
				if n > 0 {
					net[from] = net[from][1:]
				}
			case 4:
				now = now.Add(time.Second)
				flush()
			case 5:
				now = now.Add(5 * time.Second)
				flush()
			}
		}
		for range 400 {
			for from := range net {
				for len(net[from]) > 0 {
					deliver(from, 0)
					net[from] = net[from][1:]
				}
			}
			now = now.Add(500 * time.Millisecond)
			flush()
		}
		if !slices.Equal(sent[0], got[0]) || !slices.Equal(sent[1], got[1]) {
			rt.Fatalf("sent %d and %d messages, got %d and %d", len(sent[0]), len(sent[1]), len(got[0]), len(got[1]))
		}
		if w := agent.Wake(); !w.IsZero() {
			rt.Errorf("an idle pipe wakes at %v", w)
		}
	})
}

// randomText does not compress.
func randomText(n, seed int) string {
	var b []byte
	for i := 0; len(b) < n; i++ {
		s := sha256.Sum256(fmt.Append(nil, seed, i))
		b = append(b, s[:]...)
	}
	return string(b[:n])
}

func TestPipeGivesUp(t *testing.T) {
	agent, _, _, _ := pair(t, nil)
	now := time.Unix(0, 0)
	agent.Send(&Ping{})
	var err error
	frames := 0
	for end := now.Add(2 * GiveUp); err == nil && now.Before(end); now = agent.Wake() {
		var out [][]byte
		out, err = agent.Flush(now)
		frames += len(out)
	}
	if !errors.Is(err, ErrDead) || frames < 4 || frames > 10 {
		t.Errorf("%v after %d frames", err, frames)
	}
}

// A bomb: little on the wire, much unpacked.
func TestPipeLimits(t *testing.T) {
	agent, hub, _, _ := pair(t, nil)
	hub.Limit = 1 << 20
	now := time.Unix(0, 0)
	agent.Send(&Bye{Message: strings.Repeat("x", 2<<20)})
	out, err := agent.Flush(now)
	check(t, err)
	for _, f := range out {
		if len(f) > MaxFrame {
			t.Errorf("frame of %d bytes", len(f))
		}
		_, err = hub.Receive(now, f)
	}
	if !errors.Is(err, ErrFormat) {
		t.Errorf("a message of 2 MiB against a limit of 1: %v", err)
	}
}

func TestTopics(t *testing.T) {
	for topic, kind := range map[string]TopicKind{
		UpTopic("c", "n"): TopicUp, DownTopic("c", "n"): TopicDown, LiveTopic("c", "n"): TopicLive,
		StreamUp("c", "n", "s"): TopicStreamUp, StreamDown("c", "n", "s"): TopicStreamDown,
		"": 0, "petrel/c/n": 0, "petrel/c//up": 0, "petrel/c/+/up": 0, "petrel/#": 0, "x/c/n/up": 0, "petrel/c/n/s/a/b/up": 0,
		"petrel/c/n/up/": 0, "petrel/c/n/s/+/up": 0, "petrel/c/n/UP": 0,
	} {
		c, n, _, k, ok := ParseTopic(topic)
		if k != kind || ok != (kind != 0) || ok && (c != "c" || n != "n") {
			t.Errorf("%q: %v %v %v %v", topic, c, n, k, ok)
		}
	}
	for in, want := range map[string]string{
		"mqtt://b": "tcp://b:1883", "mqtts://u:p@b:99": "ssl://b:99", "mqtts://[::1]": "ssl://[::1]:8883", "http://b": "",
	} {
		u, err := url.Parse(in)
		check(t, err)
		if got, err := BrokerAddress(u); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

// What is packed can be unpacked, at every size about where packing begins; and a few bytes that claim to be many are
// refused before anything is made of them.
func TestPack(t *testing.T) {
	for n := range 4 * packFrom {
		b, packed := pack(make([]byte, n))
		if packed {
			var err error
			if b, err = unpack(b, n); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
		if len(b) != n {
			t.Fatalf("%d bytes came back as %d", n, len(b))
		}
	}
	bomb, _ := pack(make([]byte, 8<<20))
	if n := testing.AllocsPerRun(10, func() {
		if _, err := unpack(bomb, 4<<20); !errors.Is(err, ErrFormat) {
			t.Errorf("8 MiB in %d bytes: %v", len(bomb), err)
		}
	}); n > 10 {
		t.Errorf("%v allocations to refuse it", n)
	}
}
