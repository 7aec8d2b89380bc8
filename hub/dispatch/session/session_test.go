package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/internal/wire"
)

// rig is a session and a node that holds its keys and otherwise does as it likes.
type rig struct {
	t    *testing.T
	now  time.Time
	s    *Session
	node *wire.Pipe
	end  error
	over bool
}

// handshake brings a session to where the hub has to judge the node.
func handshake(t *testing.T) *rig {
	t.Helper()
	return handshakeOf(t, wire.Version)
}

// handshakeOf is handshake with a node of a version.
func handshakeOf(t *testing.T, version uint32) *rig {
	t.Helper()
	hub, err := wire.NewStaticKey(rand.Reader)
	check(t, err)
	device, err := wire.NewStaticKey(rand.Reader)
	check(t, err)
	hello := &wire.Hello{Version: version, Epoch: 1}
	place := wire.Place{Cluster: "c", Node: wire.NodeID(wire.Fingerprint(hello.TLSKey[:], device.Public))}
	init, err := wire.NewInitiator(place, device, hub.Public, nil)
	check(t, err)
	r := &rig{t: t, now: time.Unix(1e9, 0)}
	r.s, err = New(r.now, place, hub, init.Knock())
	check(t, err)
	out := r.s.Drain(r.now)
	var frame []byte
	frame, r.node, err = init.Challenge(out.Frames[0], hello)
	check(t, err)
	r.s.Frame(r.now, frame)
	if out := r.s.Drain(r.now); out.Hello == nil {
		t.Fatalf("no hello to judge: %+v", out)
	}
	return r
}

// says has the node send a message, and its frames arrive. Nothing that the hub says reaches the node, but that all of it
// has been acknowledged (deaf: not even that).
func (r *rig) says(m wire.Message) (batches []*wire.Batch) {
	r.t.Helper()
	r.node.Send(m)
	for r.node.Backlog() > 0 && !r.over {
		frames, err := r.node.Flush(r.now)
		check(r.t, err)
		for _, f := range frames {
			r.s.Frame(r.now, f)
		}
		out := r.s.Drain(r.now.Add(200 * time.Millisecond)) // acknowledgements are out
		batches = append(batches, out.Batches...)
		for _, f := range out.Frames {
			if f[0] == 5 { // an acknowledgement; answers the node throws away
				_, err := r.node.Receive(r.now, f)
				check(r.t, err)
			}
		}
		r.over, r.end = out.Ended, out.Err
		r.now = r.now.Add(200 * time.Millisecond)
	}
	return batches
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) accept() {
	r.s.Accept(wire.Welcome{Node: "n1"}, wire.NewSender(), wire.Hash{}, wire.NewCopy(), func() uint64 { return 1 })
	r.s.Drain(r.now)
}

func put(uid string) wire.Put {
	return wire.Put{Object: wire.Object{ID: wire.ID{Kind: wire.KindPodStatus, UID: uid}, Version: 1}}
}

// A stranger who has made the handshake, and a node that has been refused, cannot have the hub keep what they send.
func TestNothingIsHeardBeforeTheWelcome(t *testing.T) {
	for _, refused := range []bool{false, true} {
		r := handshake(t)
		if refused {
			r.s.Refuse(r.now, wire.Refuse{Code: wire.CodeUnknownDevice})
			r.s.Drain(r.now)
		}
		r.node.Send(&wire.Have{Entries: make([]wire.Entry, 100)})
		frames, err := r.node.Flush(r.now)
		check(t, err)
		for _, f := range frames {
			r.s.Frame(r.now, f)
		}
		for _, f := range r.s.Drain(r.now.Add(time.Second)).Frames {
			if f[0] == 5 {
				t.Errorf("refused %v: the hub took a frame before its welcome", refused)
			}
		}
	}
}

// What a joined but hostile node may have the hub keep is bounded: the session ends.
func TestHostileNodeIsCutOff(t *testing.T) {
	t.Run("a second batch before the first is answered", func(t *testing.T) {
		r := handshake(t)
		r.accept()
		if b := r.says(&wire.Batch{Seq: 1, Puts: []wire.Put{put("a")}}); len(b) != 1 || r.over {
			t.Fatalf("first batch: %v, over %v, %v", b, r.over, r.end)
		}
		r.says(&wire.Batch{Seq: 2, Puts: []wire.Put{put("b")}})
		if !errors.Is(r.end, wire.ErrFormat) {
			t.Errorf("ended with %v", r.end)
		}
	})
	t.Run("questions without end", func(t *testing.T) {
		r := handshake(t)
		r.accept()
		for range 4 * maxAnswers {
			if r.says(&wire.Ping{}); r.over {
				break
			}
		}
		if !errors.Is(r.end, ErrNotListening) {
			t.Errorf("ended with %v", r.end)
		}
		if n := r.s.pipe.Backlog(); n > maxAnswers+2 {
			t.Errorf("%d answers are kept", n)
		}
	})
	t.Run("reports without end", func(t *testing.T) {
		r := handshake(t)
		r.accept()
		for seq := uint64(1); seq < 1000 && !r.over; seq++ {
			b := &wire.Batch{Seq: seq}
			for k := range 20 {
				b.Puts = append(b.Puts, put(fmt.Sprint(seq, "/", k, strings.Repeat("x", 1000))))
			}
			r.says(b)
			r.s.Committed(seq)
			// The answers are read, so that nothing but the reports can be the reason.
			out := r.s.Drain(r.now)
			for _, f := range out.Frames {
				if _, err := r.node.Receive(r.now, f); err != nil {
					t.Fatal(err)
				}
			}
			r.over, r.end = r.over || out.Ended, errors.Join(r.end, out.Err)
		}
		if !errors.Is(r.end, wire.ErrFormat) {
			t.Errorf("ended with %v", r.end)
		}
	})
}

// hears returns what the hub has sent to the node by now.
func (r *rig) hears() (got []wire.Message) {
	r.t.Helper()
	for _, f := range r.s.Drain(r.now.Add(200 * time.Millisecond)).Frames {
		msgs, err := r.node.Receive(r.now, f)
		check(r.t, err)
		got = append(got, msgs...)
	}
	return got
}

// An agent of version 1 would take a revision for proof that its Node was deleted, and knows no Complete.
func TestAgentsOfVersion1(t *testing.T) {
	for _, version := range []uint32{1, 2} {
		r := handshakeOf(t, version)
		r.s.Refuse(r.now, wire.Refuse{Code: wire.CodeUnknownDevice, Revision: 700, History: "h"})
		got := r.hears()
		if len(got) != 1 {
			t.Fatalf("version %d received %v", version, got)
		}
		if m := got[0].(*wire.Refuse); (m.Revision == 0) != (version == 1) {
			t.Errorf("version %d is refused with revision %d", version, m.Revision)
		}
		r = handshakeOf(t, version)
		r.s.Accept(wire.Welcome{Node: "n1"}, wire.NewSender(), wire.Hash{}, wire.NewCopy(), func() uint64 { return 1 })
		r.s.Settle()
		r.s.Settle()
		complete := 0
		for _, m := range r.hears() {
			if _, ok := m.(*wire.Complete); ok {
				complete++
			}
		}
		if complete != int(version-1) {
			t.Errorf("version %d received %d times that its set is complete", version, complete)
		}
	}
}

// The set is not complete while a batch is unanswered.
func TestCompleteComesAfterTheLastAnswer(t *testing.T) {
	r := handshake(t)
	down := wire.NewSender()
	down.Set(&wire.Object{ID: wire.ID{Kind: wire.KindPod, UID: "u"}, Version: 1}, false)
	r.s.Accept(wire.Welcome{Node: "n1"}, down, wire.Hash{}, wire.NewCopy(), func() uint64 { return 1 })
	r.s.Settle()
	var batch *wire.Batch
	for _, m := range r.hears() {
		switch m := m.(type) {
		case *wire.Batch:
			batch = m
		case *wire.Complete:
			t.Fatal("complete before the batch was sent")
		}
	}
	r.s.Settle()
	if got := r.hears(); len(got) > 0 {
		t.Fatalf("before the answer: %v", got)
	}
	r.says(&wire.Applied{Seq: batch.Seq, Hash: batch.Hash})
	r.s.Settle()
	got := r.hears()
	if len(got) != 1 || got[0].(*wire.Complete).Hash != batch.Hash {
		t.Errorf("after the answer: %v", got)
	}
}
