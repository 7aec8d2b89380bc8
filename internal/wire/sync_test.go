package wire

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Whatever changes when, a copy that applies all batches of a sender comes to the sender's hash, from any start; and a
// pod is never there without what came with it.
func TestSenderProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		base, c := NewShared(), &holder{Copy: NewCopy(), objects: map[ID]Object{}}
		s := NewSharing(base)
		s.Except(ID{KindPeer, "self"})
		if rapid.Bool().Draw(rt, "rounds") {
			s.UseRounds()
		}
		var version uint64
		kinds := []Kind{KindPod, KindConfigMap, KindEvent}
		share := func() {
			for range rapid.IntRange(1, 3).Draw(rt, "in the round") {
				id := ID{KindPeer, rapid.SampledFrom([]string{"a", "b", "c", "self"}).Draw(rt, "peer")}
				if rapid.IntRange(0, 2).Draw(rt, "op") == 0 {
					base.Remove(id)
					continue
				}
				// Few contents, so that an object also changes back while a batch is on its way.
				o := &Object{ID: id, Data: list(rapid.SliceOfN(rapid.IntRange(1, 3), 0, 3).Draw(rt, "content"))}
				o.Version = ContentVersion(o)
				base.Put(o)
			}
			if r := base.Cut(); r != nil {
				s.SharedChanged(r)
			}
		}
		for range rapid.IntRange(0, 4).Draw(rt, "shared before") {
			share()
		}
		id := func() ID {
			return ID{rapid.SampledFrom(kinds).Draw(rt, "kind"), fmt.Sprint(rapid.IntRange(0, 9).Draw(rt, "uid"))}
		}
		change := func() {
			if rapid.IntRange(0, 2).Draw(rt, "which") == 0 {
				share()
				return
			}
			if i := id(); rapid.IntRange(0, 3).Draw(rt, "op") == 0 {
				s.Remove(i)
			} else {
				version++
				s.Set(&Object{ID: i, Version: version, Data: make([]byte, rapid.SampledFrom([]int{1, batchBytes}).Draw(rt, "size"))}, i.Kind == KindEvent)
			}
		}
		for range rapid.IntRange(0, 20).Draw(rt, "strange copy") {
			version++
			strange := id()
			if rapid.Bool().Draw(rt, "strange peer") {
				strange = ID{KindPeer, rapid.SampledFrom([]string{"a", "b", "self", "gone"}).Draw(rt, "peer")}
			}
			c.apply(&Batch{Puts: []Put{{Object: Object{ID: strange, Version: version%4 + 1}}}})
		}
		for range rapid.IntRange(1, 4).Draw(rt, "sessions") {
			s.Begin(c.Hash())
			for range rapid.IntRange(0, 20).Draw(rt, "steps") {
				change()
				turn(rt, s, c, rapid.Bool().Draw(rt, "answered"))
			}
			s.End()
		}
		s.Begin(c.Hash())
		for i := 0; !s.Settled(); i++ {
			if i > 200 {
				rt.Fatal("never settles")
			}
			turn(rt, s, c, true)
		}
		if c.Hash() != s.Hash() {
			rt.Fatalf("settled, but hashes differ")
		}
		n := 0
		s.Members(func(o *Object, once bool) {
			if once {
				rt.Errorf("once member %v is still there", o.ID)
			}
			n++
		})
		if n != len(c.Entries()) || n != s.Len() {
			rt.Errorf("%d members, copy has %d", n, len(c.Entries()))
		}
		c.check(rt)
		for id, o := range base.objects {
			if got := c.objects[id]; id.UID != "self" && string(got.Data) != string(o.Data) {
				rt.Errorf("%v is %q, shared %q", id, got.Data, o.Data)
			}
		}
		for id := range s.members {
			if id.Kind == KindPeer {
				rt.Errorf("shared %v has an entry of its own though the peer has it", id)
			}
		}
	})
}

// holder is a copy with content, as an agent has it.
type holder struct {
	*Copy
	objects map[ID]Object
}

func (h *holder) apply(b *Batch) {
	b = b.Expand(func(id ID) (Object, bool) { o, ok := h.objects[id]; return o, ok })
	h.Apply(b)
	for _, id := range b.Deletes {
		delete(h.objects, id)
	}
	for _, p := range b.Puts {
		if delete(h.objects, p.ID); !p.Once {
			h.objects[p.ID] = p.Object
		}
	}
}

// check checks that content and versions go together.
func (h *holder) check(t *rapid.T) {
	if len(h.objects) != len(h.Entries()) {
		t.Errorf("%d objects, %d entries", len(h.objects), len(h.Entries()))
	}
	for _, e := range h.Entries() {
		if o := h.objects[e.ID]; o.Version != e.Version {
			t.Errorf("%v is of version %d, the entry says %d", e.ID, o.Version, e.Version)
		}
	}
}

// list returns content of which parts recur.
func list(n []int) []byte {
	b := []byte("[")
	for _, x := range n {
		b = fmt.Appendf(b, `{"name":"an endpoint of a Service","n":%d},`, x)
	}
	return append(b, ']')
}

// turn lets one message pass. An unanswered batch is applied all the same: the answer got lost.
func turn(rt *rapid.T, s *Sender, c *holder, answered bool) {
	switch m := s.Next(1).(type) {
	case *NeedMap:
		if answered {
			s.Have(&Have{Entries: c.Entries()})
		}
	case *Batch:
		decoded, err := Decode(Encode(m))
		if err != nil {
			rt.Fatal(err)
		}
		c.apply(decoded.(*Batch))
		if answered {
			if s.Applied(&Applied{Seq: m.Seq, Hash: c.Hash()}) != m {
				rt.Fatal("the answer to the batch in flight was not taken")
			}
		}
	}
}

// TestDiverged checks that a peer that keeps coming to a wrong hash is given up, not talked to without end.
func TestDiverged(t *testing.T) {
	s := NewSender()
	s.Set(&Object{ID: ID{KindPod, "a"}, Version: 1}, false)
	s.Begin(Hash{})
	for i := 0; !s.Diverged(); i++ {
		if i > 20 {
			t.Fatal("never given up")
		}
		switch m := s.Next(1).(type) {
		case *NeedMap:
			s.Have(&Have{})
		case *Batch:
			s.Applied(&Applied{Seq: m.Seq, Hash: Hash{9, 9}})
		}
	}
	if first, second := s.Next(1), s.Next(1); first != nil && second != nil {
		t.Error("goes on after giving up")
	}
}

func TestOrder(t *testing.T) {
	s := NewSender()
	for _, id := range []ID{{KindPod, "p"}, {KindSecret, "s"}, {KindConfigMap, "c"}} {
		s.Set(&Object{ID: id, Version: 1, Data: make([]byte, batchBytes)}, false)
	}
	s.Begin(Hash{})
	var kinds []Kind
	for b, _ := s.Next(1).(*Batch); b != nil; b, _ = s.Next(1).(*Batch) {
		kinds = append(kinds, b.Puts[0].Kind)
		s.Applied(&Applied{Seq: b.Seq, Hash: b.Hash})
	}
	if fmt.Sprint(kinds) != "[ConfigMap Secret Pod]" {
		t.Errorf("order %v: a pod must come after what it refers to", kinds)
	}
}
