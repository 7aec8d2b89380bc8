package session

import (
	"errors"
	"fmt"
	"testing"

	"petrel.dev/petrel/internal/wire"
)

// An agent before version 3 gets a shared object as a whole, later ones its difference.
func TestOlderAgentsGetNoRounds(t *testing.T) {
	for _, version := range []uint32{1, 2, 3} {
		r := handshakeOf(t, version)
		base := wire.NewShared()
		share := func(n int) *wire.Round {
			o := &wire.Object{ID: wire.ID{Kind: wire.KindService, UID: "s"}, Data: fmt.Appendf(nil, `[{"n":%d},{"ip":"10.42.0.1","node":"n1"}]`, n)}
			o.Version = wire.ContentVersion(o)
			base.Put(o)
			return base.Cut()
		}
		share(1)
		down := wire.NewSharing(base)
		r.s.Accept(wire.Welcome{Node: "n1"}, down, down.Hash(), wire.NewCopy(), func() uint64 { return 1 })
		down.SharedChanged(share(2))
		var got *wire.Batch
		for _, m := range r.hears() {
			if b, ok := m.(*wire.Batch); ok {
				got = b
			}
		}
		if got == nil || (len(got.Rounds) == 1) != (version >= 3) || (len(got.Puts) == 1) != (version < 3) {
			t.Errorf("version %d gets %+v", version, got)
		}
	}
}

// Rounds go down only: a hub would have to unpack what a node makes it unpack.
func TestNodesSendNoRounds(t *testing.T) {
	r := handshake(t)
	r.accept()
	r.says(&wire.Batch{Seq: 1, Rounds: [][]byte{{0}}})
	if !errors.Is(r.end, wire.ErrFormat) {
		t.Errorf("ended with %v", r.end)
	}
}

// A node whose copy was found to differ, after it was informed that it has everything, is informed again.
func TestCompleteAgainAfterADifference(t *testing.T) {
	r := handshake(t)
	down := wire.NewSender()
	r.s.Accept(wire.Welcome{Node: "n1"}, down, wire.Hash{}, wire.NewCopy(), func() uint64 { return 1 })
	var batch *wire.Batch
	complete := func() (n int) {
		r.s.Settle()
		for _, m := range r.hears() {
			switch m := m.(type) {
			case *wire.Batch:
				batch = m
			case *wire.Complete:
				n++
			}
		}
		return n
	}
	if n := complete(); n != 1 {
		t.Fatalf("complete %d times at first", n)
	}
	down.Set(&wire.Object{ID: wire.ID{Kind: wire.KindPod, UID: "u"}, Version: 1}, false)
	complete()
	r.s.down.Applied(&wire.Applied{Seq: batch.Seq, Hash: wire.Hash{9}})
	complete() // asks for the map
	r.s.Have(&wire.Have{})
	complete() // sends it again
	r.s.down.Applied(&wire.Applied{Seq: batch.Seq, Hash: batch.Hash})
	if n := complete(); n != 1 {
		t.Errorf("complete %d times after the difference", n)
	}
	if n := complete(); n != 0 {
		t.Errorf("complete %d times too often", n)
	}
}
