// Package session is the agent's side of one session with the hub: what to say and do about each frame, each durable
// batch, each changed report and each moment. It holds no goroutine, clock, socket or file; edgeagent/link drives it.
//
//	knocking ──challenge──► greeting ──welcome──► open ──► ended
//	    └───────────────────────┴── refuse ───────────────────┘
//
// Text scripts (testdata) show what it does against a hub that does as the script says. Both sessions against each other,
// over a net that drops, doubles and delays, are test/link's TestModel and TestScripts.
package session

import (
	"errors"
	"fmt"
	"time"

	"petrel.dev/petrel/internal/wire"
)

// Times of a handshake. A knock is repeated for long, because the broker may be there while the hub is not; but it ends some
// day, because a connection may be dead without anybody noticing.
const (
	knockFirst = 5 * time.Second
	knockMax   = 5 * time.Minute
	knockLimit = 20 * time.Minute
	helloEvery = 5 * time.Second
	helloLimit = time.Minute
)

// Desired is the agent's copy of the desired set, as the cache holds it.
type Desired interface {
	Hash() wire.Hash
	Entries() []wire.Entry
}

// Config is what a session is made of.
type Config struct {
	Place   wire.Place
	Key     wire.StaticKey
	Hub     wire.PublicKey
	Hello   wire.Hello // all but Down and Revision
	Desired Desired
	// Revision is the largest hub revision applied so far.
	Revision func() uint64
	// Reports is the set of reports. It outlives the session, whose alone it is meanwhile.
	Reports *wire.Sender
}

// Output is what the driver has to do, in order of the fields.
type Output struct {
	Frames  [][]byte
	Welcome *wire.Welcome
	// Apply are batches of the desired set: the caller makes each durable, then calls Applied.
	Apply []*wire.Batch
	// Handed are batches of reports that the hub has made durable.
	Handed []*wire.Batch
	Open   []*wire.Open
	// Complete is true if the copy is all that the hub wants of this node; the hub has said so.
	Complete bool
	// End is why the session is over; nil: it is not. *wire.Refuse and *Ended come from the hub.
	End error
}

// Ended is the hub's end of an open session.
type Ended struct {
	Code    wire.Code
	Message string
}

func (e *Ended) Error() string { return "hub ended the session: " + e.Message }

// ErrUnknown is a hub that does not know the session: it has restarted. Connect again.
var ErrUnknown = errors.New("hub does not know this session")

// ErrDiverged is a hub whose copy of the reports does not become what it is sent.
var ErrDiverged = errors.New("the hub's copy of the reports does not become what it is sent")

// ErrNoHub is a broker behind which no hub answers.
var ErrNoHub = errors.New("connected, but no hub answers")

// ErrNoWelcome is a hub that went silent in the middle of the handshake.
var ErrNoWelcome = errors.New("hub did not answer the hello")

type state uint8

const (
	knocking state = iota
	greeting
	open
	ended
)

// Session is the state machine. Its methods only change it; Drain gives what to do.
type Session struct {
	cfg   Config // not changed after New
	state state
	init  *wire.Initiator
	pipe  *wire.Pipe    // nil before the challenge, never nil after
	hello []byte        // to be repeated until the hub answers; set with pipe
	again time.Time     // when to repeat the knock or the hello
	wait  time.Duration // between knocks
	limit time.Time     // when knocking or greeting has taken too long
	seq   uint64        // of the last batch of the desired set passed to the driver
	out   Output
}

// New starts a session: it knocks.
func New(now time.Time, cfg Config) (*Session, error) {
	init, err := wire.NewInitiator(cfg.Place, cfg.Key, cfg.Hub, nil)
	if err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, init: init, wait: knockFirst}
	s.out.Frames = append(s.out.Frames, init.Knock())
	s.again, s.limit = now.Add(s.wait), now.Add(knockLimit)
	return s, nil
}

// Open reports whether the hub has accepted the session.
func (s *Session) Open() bool { return s.state == open }

// Frame takes a frame from the down topic.
func (s *Session) Frame(now time.Time, frame []byte) {
	typ, tag, err := wire.Peek(frame)
	if err != nil || s.state == ended {
		return
	}
	switch {
	case typ == wire.FrameNudge:
		s.nudge(now, tag)
	case tag != s.cfg.Place.Tag:
	case typ == wire.FrameChallenge && s.state == knocking:
		s.challenge(now, frame)
	case typ == wire.FrameOther && s.pipe != nil:
		msgs, err := s.pipe.Receive(now, frame)
		for _, m := range msgs {
			s.message(m)
		}
		if err != nil && !errors.Is(err, wire.ErrSeal) {
			s.end(fmt.Errorf("frame from hub: %w", err))
		}
	}
}

// nudge takes the hint that the hub has restarted. It is not sealed, so it only makes the agent look.
func (s *Session) nudge(now time.Time, tag wire.Tag) {
	switch {
	case s.state == knocking:
		s.again, s.wait = now, knockFirst
	case tag == s.cfg.Place.Tag:
		s.end(ErrUnknown)
	case tag == wire.Tag{} && s.state == open:
		s.pipe.Send(&wire.Ping{})
	}
}

func (s *Session) challenge(now time.Time, frame []byte) {
	h := s.cfg.Hello
	h.Version = wire.Version
	h.Down, h.Revision = s.cfg.Desired.Hash(), s.cfg.Revision()
	hello, pipe, err := s.init.Challenge(frame, &h)
	if err != nil {
		return // not the hub's; the knock goes on
	}
	s.state, s.hello, s.pipe = greeting, hello, pipe
	s.out.Frames = append(s.out.Frames, hello)
	s.again, s.limit = now.Add(helloEvery), now.Add(helloLimit)
}

func (s *Session) message(m wire.Message) {
	if s.state == greeting {
		switch m := m.(type) {
		case *wire.Welcome:
			s.state, s.again = open, time.Time{}
			s.out.Welcome = m
			s.cfg.Reports.Begin(m.Up)
		case *wire.Refuse:
			s.end(m)
		default:
			s.end(fmt.Errorf("hub said %T before its welcome: %w", m, wire.ErrFormat))
		}
		return
	}
	if s.state != open {
		return
	}
	switch m := m.(type) {
	case *wire.Batch:
		if m.Seq != s.seq+1 {
			s.end(fmt.Errorf("batch %d after %d: %w", m.Seq, s.seq, wire.ErrFormat))
			return
		}
		s.seq = m.Seq
		s.out.Apply = append(s.out.Apply, m)
	case *wire.NeedMap:
		s.pipe.Send(&wire.Have{Entries: s.cfg.Desired.Entries()})
	case *wire.Have:
		s.cfg.Reports.Have(m)
	case *wire.Applied:
		if b := s.cfg.Reports.Applied(m); b != nil {
			s.out.Handed = append(s.out.Handed, b)
		}
		if s.cfg.Reports.Diverged() {
			s.end(ErrDiverged)
		}
	case *wire.Open:
		s.out.Open = append(s.out.Open, m)
	case *wire.Ping:
		s.pipe.Send(&wire.Pong{})
	case *wire.Complete:
		// The hub says it when every batch has been answered, so nothing can be on its way to the disk. A copy that
		// differs is not complete, whatever the hub believes.
		if s.cfg.Desired.Hash() == m.Hash {
			s.out.Complete = true
		}
	case *wire.Bye:
		s.end(&Ended{m.Code, m.Message})
	}
}

// Applied says that a batch is durable, and the hash that the copy has come to. With another hash than the batch
// announced, the hub asks for the map.
func (s *Session) Applied(seq uint64, hash wire.Hash) {
	if s.state == open {
		s.pipe.Send(&wire.Applied{Seq: seq, Hash: hash})
	}
}

// Stop says good-bye; the frames still go out with the next Drain.
func (s *Session) Stop() {
	if s.state == open {
		s.pipe.Send(&wire.Bye{})
	}
}

// Fail ends the session for a reason of the driver's.
func (s *Session) Fail(err error) { s.end(err) }

func (s *Session) end(err error) {
	if s.state == ended {
		return
	}
	s.cfg.Reports.End()
	s.state, s.out.End = ended, err
}

// Drain gives what there is to do by now. Call it after every other call and at Wake.
func (s *Session) Drain(now time.Time) Output {
	if s.state == open {
		if m := s.cfg.Reports.Next(0); m != nil {
			s.pipe.Send(m)
		}
	}
	switch {
	case s.state == greeting && !now.Before(s.limit):
		s.end(ErrNoWelcome)
	case s.state == knocking && !now.Before(s.limit):
		s.end(ErrNoHub)
	case s.state == greeting && !now.Before(s.again):
		s.out.Frames = append(s.out.Frames, s.hello)
		s.again = now.Add(helloEvery)
	case s.state == knocking && !now.Before(s.again):
		s.out.Frames = append(s.out.Frames, s.init.Knock())
		s.wait = min(2*s.wait, knockMax)
		s.again = now.Add(s.wait)
	}
	if s.pipe != nil {
		frames, err := s.pipe.Flush(now)
		s.out.Frames = append(s.out.Frames, frames...)
		if err != nil {
			s.end(err)
		}
	}
	out := s.out
	s.out = Output{}
	return out
}

// Wake is when Drain has something to do even if nothing else happens; zero: never.
func (s *Session) Wake() time.Time {
	if s.state == ended {
		return time.Time{}
	}
	t := s.again
	if s.pipe != nil {
		if w := s.pipe.Wake(); t.IsZero() || !w.IsZero() && w.Before(t) {
			t = w
		}
	}
	return t
}
