package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Whatever both contents are, a delta makes the one of the other.
func TestDelta(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		piece := rapid.SampledFrom([]string{"", "x", "{", "{}", `{"ip":"10.42.0.1"},`, `{"ip":"10.42.0.2"},`, `{"ip":"10.42.0.3","ports":{"":80}},`})
		content := func(label string) []byte {
			return []byte(strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(rt, label), ""))
		}
		old, now := content("old"), content("now")
		got, err := applyDelta(old, makeDelta(old, now), len(now))
		if err != nil || !bytes.Equal(got, now) {
			rt.Fatalf("%q to %q came to %q: %v", old, now, got, err)
		}
	})
}

// endpoints is content like that of a Service with n endpoints, one of which is another.
func endpoints(n, other int) []byte {
	b := []byte(`{"ns":"default","name":"web","endpoints":[`)
	for i := range n {
		last := i
		if i == other {
			last += 1000
		}
		b = fmt.Appendf(b, `{"ip":"10.48.%d.%d","ports":{"":8080},"node":"node-%04d","ready":true},`, i/250, i%250, last)
	}
	return append(b, "]}"...)
}

// A delta of one endpoint is as small as one endpoint, wherever it is, comes or goes.
func TestDeltaOfAnEndpointIsSmall(t *testing.T) {
	whole := endpoints(100, -1)
	for name, now := range map[string][]byte{"changed": endpoints(100, 50), "last": endpoints(101, -1), "gone": endpoints(99, -1), "same": whole,
		"moved": bytes.Replace(whole, []byte(`{"ip":"10.48.0.7"`), []byte(`{"ip":"10.48.0.6"`), 1)} {
		d := makeDelta(whole, now)
		if got, err := applyDelta(whole, d, len(now)); err != nil || !bytes.Equal(got, now) {
			t.Errorf("%s: comes to something else: %v", name, err)
		}
		if len(d) > 160 {
			t.Errorf("%s: %d bytes of %d", name, len(d), len(whole))
		}
	}
}

// A delta of anything makes no more than it may, and never reads what is not there.
func FuzzDelta(f *testing.F) {
	whole := endpoints(5, -1)
	f.Add(whole, makeDelta(whole, endpoints(6, 2)))
	f.Add([]byte("{"), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, old, delta []byte) {
		if got, err := applyDelta(old, delta, 1000); err == nil && len(got) > 1000 {
			t.Errorf("%d bytes", len(got))
		}
	})
}

// A round of anything changes nothing that does not carry a version's own content, and takes no more room than it may.
func FuzzRound(f *testing.F) {
	have := goldenRound().changes
	f.Add(goldenRound().bytes())
	f.Add([]byte{1, 0x28, 0xb5, 0x2f, 0xfd})
	f.Add([]byte{0, roundPatch, 5, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		out := (&Batch{Rounds: [][]byte{b, b}}).Expand(func(id ID) (Object, bool) {
			for _, c := range have {
				if c.id == id && c.before != nil {
					return *c.before, true
				}
			}
			return Object{}, false
		})
		size := 0
		for _, p := range out.Puts {
			size += len(p.Data)
		}
		if size > 2*MaxMessage {
			t.Errorf("%d bytes", size)
		}
	})
}

// A patch for another version than the copy has is left out: the hash shows it. So is what comes to other content than it should.
func TestPatchThatDoesNotFit(t *testing.T) {
	r := goldenRound()
	expand := func(data string, packed []byte) (uids []string) {
		changed := ID{KindService, "changed"}
		for _, p := range (&Batch{Rounds: [][]byte{packed}}).Expand(func(id ID) (Object, bool) {
			o := Object{ID: changed, Namespace: "ns", Name: "changed", Data: []byte(data)}
			o.Version = ContentVersion(&o)
			return o, id == changed
		}).Puts {
			uids = append(uids, p.UID)
		}
		return uids
	}
	if got := expand(string(list([]int{1, 2, 3})), r.bytes()); fmt.Sprint(got) != "[new changed]" {
		t.Errorf("the right copy takes %v", got)
	}
	if got := expand(string(list([]int{1, 2})), r.bytes()); fmt.Sprint(got) != "[new]" {
		t.Errorf("another copy takes %v", got)
	}
	var e encoder
	for i := range r.changes {
		c := r.changes[i]
		if c.before != nil && c.now != nil {
			e.b = append(e.b, roundPatch)
			e.id(c.id)
			e.fixed(c.before.Version)
			e.fixed(c.now.Version)
			e.bytes(makeDelta(c.before.Data, []byte("[]")))
		}
	}
	if got := expand(string(list([]int{1, 2, 3})), append([]byte{0}, e.b...)); len(got) > 0 {
		t.Errorf("a patch that comes to other content is taken: %v", got)
	}
}

// Peers that had all that was shared get one round as the same bytes; a peer that is far behind gets objects as they are by then.
func TestRoundsAreEncodedOnce(t *testing.T) {
	base := NewShared()
	put := func(n int) {
		o := &Object{ID: ID{KindService, "s"}, Data: endpoints(100, n)}
		o.Version = ContentVersion(o)
		base.Put(o)
	}
	put(0)
	base.Cut()
	var senders [3]*Sender
	for i := range senders {
		senders[i] = NewSharing(base)
		if i > 0 {
			senders[i].UseRounds()
		}
		senders[i].Begin(senders[i].Hash())
	}
	put(1)
	r := base.Cut()
	for _, s := range senders {
		s.SharedChanged(r)
	}
	old, a, b := senders[0].Next(1).(*Batch), senders[1].Next(1).(*Batch), senders[2].Next(1).(*Batch)
	if len(a.Rounds) != 1 || len(b.Rounds) != 1 || &a.Rounds[0][0] != &b.Rounds[0][0] {
		t.Errorf("%d and %d rounds, not the same bytes", len(a.Rounds), len(b.Rounds))
	}
	if n := len(Encode(a)); n > 300 {
		t.Errorf("the change of one endpoint has %d bytes", n)
	}
	if len(old.Rounds) != 0 || len(old.Puts) != 1 {
		t.Errorf("a peer of an older version gets %+v", old)
	}
	senders[1].Applied(&Applied{Seq: a.Seq, Hash: a.Hash}) // the other one does not answer
	for i := range maxBehind + 5 {
		put(i + 2)
		r := base.Cut()
		senders[1].SharedChanged(r)
		senders[2].SharedChanged(r)
		m := senders[1].Next(1).(*Batch)
		if len(m.Rounds) != 1 || len(m.Puts) != 0 {
			t.Fatalf("change %d: %d rounds, %d puts", i, len(m.Rounds), len(m.Puts))
		}
		senders[1].Applied(&Applied{Seq: m.Seq, Hash: m.Hash})
	}
	senders[2].Applied(&Applied{Seq: b.Seq, Hash: b.Hash})
	if m := senders[2].Next(1).(*Batch); len(m.Puts) != 1 || len(m.Rounds) > maxBehind {
		t.Errorf("who was far behind gets %d puts, %d rounds", len(m.Puts), len(m.Rounds))
	}
}

// What is too large for one batch goes object by object, in several.
func TestLargeRounds(t *testing.T) {
	base := NewShared()
	s := NewSharing(base)
	s.UseRounds()
	s.Begin(s.Hash())
	c := &holder{Copy: NewCopy(), objects: map[ID]Object{}}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		o := &Object{ID: ID{KindService, fmt.Sprint(i)}, Data: make([]byte, 100<<10)}
		for k := range o.Data {
			o.Data[k] = byte(random.Uint32())
		}
		o.Version = ContentVersion(o)
		base.Put(o)
	}
	s.SharedChanged(base.Cut())
	batches := 0
	for b, _ := s.Next(1).(*Batch); b != nil; b, _ = s.Next(1).(*Batch) {
		if n := len(Encode(b)); n > 2*batchBytes {
			t.Errorf("a batch of %d bytes", n)
		}
		c.apply(b)
		s.Applied(&Applied{Seq: b.Seq, Hash: c.Hash()})
		batches++
	}
	if !s.Settled() || c.Hash() != s.Hash() || batches < 2 {
		t.Errorf("settled %v after %d batches", s.Settled(), batches)
	}
}
