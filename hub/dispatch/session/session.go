// Package session is the hub's side of one session with a node: what to send and do about each frame, each committed batch
// of reports, each change of the desired set and each moment. It holds no goroutine, clock, bus or store; hub/dispatch
// drives it.
//
//	challenged ──hello──► judged ──Accept──► open ──► ended
//	     └───────────────────┴── Refuse ────────────────┘
//
// Text scripts (testdata) show what it does against a node that follows the script; in other tests here the node does what no
// agent would. Both sessions against each other, over a net that drops, doubles and delays, are test/link's TestModel
// and TestScripts.
package session

import (
	"errors"
	"fmt"
	"time"

	"petrel.dev/petrel/internal/wire"
)

const (
	// A handshake that is not finished by then is ended.
	handshakeLimit = time.Minute
	// What a node may send in one message. Bytes. Reports are small; the map of a large desired set is the largest.
	maxUp = 4 << 20
	// The hub's copy of a node's reports, in bytes: room for ten thousand pods.
	maxCopy = 1 << 20
	// Frames that may wait for a node's acknowledgement when it asks for something more. A node asks one thing at a time;
	// one that asks without end and acknowledges nothing would make the hub keep all answers.
	maxAnswers = 256
	// historyVersion is the link version that has Complete, and histories in Welcome and Refuse.
	historyVersion = 2
	// roundsVersion is the link version since which an agent takes differences of what all nodes get.
	roundsVersion = 3
	// A probed node that has not answered by then counts as gone.
	probeLimit = 5 * time.Second
)

// Output is what the driver has to do, in order of the fields.
type Output struct {
	Frames [][]byte
	// Hello is to be decided on: call Accept or Refuse.
	Hello *wire.Hello
	// Have is the node's map of the desired set; call Have with it once the set takes it into account.
	Have *wire.Have
	// Batches of reports: commit each, then call Committed.
	Batches []*wire.Batch
	// Applied are batches of the desired set that the node has made durable.
	Applied []*wire.Batch
	// Alive answers Probe.
	Alive *bool
	// Ended is true once the session is over. Err is why; nil when the node has ended it.
	Ended bool
	Err   error
}

// ErrHandshake is the end of a handshake that was not finished in time.
var ErrHandshake = errors.New("handshake not finished")

// ErrDiverged is the end of a session whose node's copy differs from what it was sent.
var ErrDiverged = errors.New("the node's copy of its desired set does not become what the hub sends")

// ErrNotListening is the end of a session whose node asks without end and acknowledges no answers.
var ErrNotListening = errors.New("the node does not take the hub's answers")

type state uint8

const (
	challenged state = iota
	judged
	open
	closing // Refuse or Bye is on its way
	ended
)

// Session is the state machine. Its methods only change its state; Drain returns what the driver has to do. It is owned by one
// goroutine.
type Session struct {
	Place wire.Place
	// Fingerprint is the device's, known and proved after its hello.
	Fingerprint string

	state    state
	resp     *wire.Responder
	pipe     *wire.Pipe    // nil before the hello, never nil after
	limit    time.Time     // of the handshake, or of the closing
	down     *wire.Sender  // the desired set; set by Accept, the session's alone from then on
	up       *wire.Copy    // the hub's copy of the reports; set by Accept
	upSeq    uint64        // last batch of reports passed to the driver
	waiting  []*wire.Batch // passed to the driver and not committed: at most one
	revision func() uint64 // set by Accept
	version  uint32        // that the node speaks
	complete bool          // Complete has been sent, and the node's map was not asked for since
	probe    time.Time     // zero: no probe under way
	lastSeen time.Time     // of the last frame of the node's own
	out      Output
}

// New begins a handshake by a node's first frame, the knock. An error means that the frame is none: drop it.
func New(now time.Time, p wire.Place, key wire.StaticKey, knock []byte) (*Session, error) {
	resp, err := wire.NewResponder(p, key, knock, nil)
	if err != nil {
		return nil, err
	}
	s := &Session{Place: p, resp: resp, limit: now.Add(handshakeLimit)}
	s.out.Frames = append(s.out.Frames, resp.Challenge())
	return s, nil
}

// Open reports whether the session is accepted and alive.
func (s *Session) Open() bool { return s.state == open }

// LastSeen returns when the node's last frame came; zero before its hello.
func (s *Session) LastSeen() time.Time { return s.lastSeen }

// Unanswered returns since when the node has left a frame unacknowledged; zero when it owes no answer.
func (s *Session) Unanswered() time.Time {
	if s.pipe == nil {
		return time.Time{}
	}
	return s.pipe.Unanswered()
}

// Frame takes a frame of this session's tag.
func (s *Session) Frame(now time.Time, frame []byte) {
	typ, _, err := wire.Peek(frame)
	if err != nil || s.state == ended {
		return
	}
	switch {
	case typ == wire.FrameKnock && s.state == challenged && s.resp.Again(frame):
		s.out.Frames = append(s.out.Frames, s.resp.Challenge())
	case typ == wire.FrameHello && s.state == challenged:
		s.hello(now, frame)
	case typ == wire.FrameOther && s.pipe != nil:
		msgs, err := s.pipe.Receive(now, frame)
		for _, m := range msgs {
			s.message(m)
		}
		switch {
		case err == nil:
			s.lastSeen = now
		case !errors.Is(err, wire.ErrSeal):
			s.end(fmt.Errorf("frame from node: %w", err))
		}
	}
}

func (s *Session) hello(now time.Time, frame []byte) {
	h, static, pipe, err := s.resp.Hello(frame)
	if errors.Is(err, wire.ErrSeal) {
		return
	}
	if err != nil {
		s.end(err)
		return
	}
	s.Fingerprint = wire.Fingerprint(h.TLSKey[:], static)
	pipe.Limit = 0 // no device has anything to send before the welcome
	s.state, s.pipe, s.lastSeen = judged, pipe, now
	switch {
	case wire.NodeID(s.Fingerprint) != s.Place.Node:
		s.end(fmt.Errorf("device %s speaks on the topics of %s", wire.NodeID(s.Fingerprint), s.Place.Node))
	case h.Version < wire.MinVersion:
		s.pipe.Send(&wire.Refuse{Code: wire.CodeVersion, Message: fmt.Sprintf(
			"the agent speaks link version %d, this hub needs %d or later: update the agent", h.Version, wire.MinVersion)})
		s.state = closing
	default:
		s.version, s.out.Hello = h.Version, h
	}
}

// Accept opens the session. down is the node's desired set, whose alone it is from now on; peer is the hash of the node's
// copy (from its hello); up is the hub's copy of the node's reports; revision returns the hub's.
func (s *Session) Accept(w wire.Welcome, down *wire.Sender, peer wire.Hash, up *wire.Copy, revision func() uint64) {
	if s.state != judged {
		return
	}
	s.state, s.limit = open, time.Time{}
	s.pipe.Limit = maxUp
	s.down, s.up, s.revision = down, up, revision
	w.Version, w.Up, w.Revision = wire.Version, up.Hash(), revision()
	s.pipe.Send(&w)
	if s.version >= roundsVersion {
		down.UseRounds()
	}
	down.Begin(peer)
}

// Refuse ends the session before its welcome. An agent of version 1 concludes from a revision that is not smaller than
// its own that its Node was deleted, which is wrong; so it gets none.
func (s *Session) Refuse(now time.Time, r wire.Refuse) {
	if s.state == judged {
		if s.version < historyVersion {
			r.Revision = 0
		}
		s.pipe.Send(&r)
		s.state, s.limit = closing, now.Add(handshakeLimit)
	}
}

// Bye ends an open session with a reason that the agent will show.
func (s *Session) Bye(now time.Time, code wire.Code, message string) {
	if s.state == open {
		s.down.End()
		s.pipe.Send(&wire.Bye{Code: code, Message: message})
		s.state, s.limit = closing, now.Add(handshakeLimit)
	}
}

// Settle informs the node that it has its whole desired set as soon as that is so: once in a session, and again after its copy was
// found to differ, since it may have differed when it was informed. Call it only while no object of the set is pending.
func (s *Session) Settle() {
	if s.state == open && !s.complete && s.version >= historyVersion && s.down.Settled() {
		s.complete = true
		s.pipe.Send(&wire.Complete{Hash: s.down.Hash()})
	}
}

// Probe asks whether the node is alive; Output.Alive has the answer.
func (s *Session) Probe(now time.Time) {
	if s.state == open && s.probe.IsZero() {
		s.pipe.Send(&wire.Ping{})
		s.probe = now.Add(probeLimit)
	}
}

// OpenStream asks the node to serve a stream.
func (s *Session) OpenStream(o *wire.Open) {
	if s.state == open {
		s.pipe.Send(o)
	}
}

func (s *Session) message(m wire.Message) {
	if _, ok := m.(*wire.Bye); ok {
		s.end(nil)
		return
	}
	if s.state != open {
		return
	}
	switch m := m.(type) {
	case *wire.Have:
		s.out.Have = m
	case *wire.Applied:
		if b := s.down.Applied(m); b != nil {
			s.out.Applied = append(s.out.Applied, b)
		}
		if s.down.Diverged() {
			s.end(ErrDiverged)
		}
	case *wire.NeedMap:
		s.answer(&wire.Have{Entries: s.up.Entries()})
	case *wire.Batch:
		if len(m.Rounds) > 0 {
			s.end(fmt.Errorf("a batch of reports with rounds: %w", wire.ErrFormat))
			return
		}
		if m.Seq != s.upSeq+1 || len(s.waiting) > 0 {
			s.end(fmt.Errorf("batch %d after %d, of which %d are not answered: %w", m.Seq, s.upSeq, len(s.waiting), wire.ErrFormat))
			return
		}
		s.upSeq = m.Seq
		s.waiting = append(s.waiting, m)
		s.out.Batches = append(s.out.Batches, m)
	case *wire.Ping:
		s.answer(&wire.Pong{})
	case *wire.Pong:
		if !s.probe.IsZero() {
			s.probe = time.Time{}
			alive := true
			s.out.Alive = &alive
		}
	}
}

// answer sends what a node has asked for, as long as it acknowledges answers.
func (s *Session) answer(m wire.Message) {
	if s.pipe.Backlog() > maxAnswers {
		s.end(ErrNotListening)
		return
	}
	s.pipe.Send(m)
}

// Have passes the node's map on to the desired set.
func (s *Session) Have(h *wire.Have) {
	if s.state == open && s.down.Have(h) {
		s.complete = false
	}
}

// Committed records that the oldest batch of reports not yet answered is durable, and answers it.
func (s *Session) Committed(seq uint64) {
	if s.state != open || len(s.waiting) == 0 || s.waiting[0].Seq != seq {
		return
	}
	s.up.Apply(s.waiting[0])
	s.waiting = s.waiting[1:]
	if s.up.Bytes() > maxCopy {
		s.end(fmt.Errorf("the node reports of more than it can have: %w", wire.ErrFormat))
		return
	}
	s.pipe.Send(&wire.Applied{Seq: seq, Hash: s.up.Hash()})
}

// Fail ends the session for a reason of the driver's, and sends the node nothing.
func (s *Session) Fail(err error) { s.end(err) }

func (s *Session) end(err error) {
	if s.state == ended {
		return
	}
	if s.state == open {
		s.down.End()
	}
	s.state, s.out.Ended, s.out.Err = ended, true, err
}

// Drain returns what there is to do by now. Call it after every other call and at Wake.
func (s *Session) Drain(now time.Time) Output {
	if s.state == open {
		if m := s.down.Next(s.revision()); m != nil {
			s.pipe.Send(m)
		}
		if !s.probe.IsZero() && !now.Before(s.probe) {
			s.probe = time.Time{}
			alive := false
			s.out.Alive = &alive
		}
	}
	if s.pipe != nil && s.state != ended {
		frames, err := s.pipe.Flush(now)
		s.out.Frames = append(s.out.Frames, frames...)
		if err != nil {
			s.end(err)
		} else if s.state == closing && s.pipe.Backlog() == 0 {
			s.end(nil)
		}
	}
	if !s.limit.IsZero() && !now.Before(s.limit) {
		s.end(ErrHandshake)
	}
	out := s.out
	s.out = Output{}
	return out
}

// Wake returns when Drain has something to do even if nothing else happens; zero: never.
func (s *Session) Wake() time.Time {
	if s.state == ended {
		return time.Time{}
	}
	t := s.limit
	add := func(w time.Time) {
		if t.IsZero() || !w.IsZero() && w.Before(t) {
			t = w
		}
	}
	add(s.probe)
	if s.pipe != nil {
		add(s.pipe.Wake())
	}
	return t
}
