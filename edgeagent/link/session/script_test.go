package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/internal/scripttest"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// The session alone, against a hub that does as the script says (testdata/*.txt). Commands:
//
//	start                        a new session on a new connection; the desired set and the reports stay
//	challenge [false]            the hub answers the knock; false: a server without the hub's key does
//	welcome equal|other|empty    how the hub's copy of the reports is to the agent's reports
//	refuse CODE TEXT...
//	batch SEQ: +Pod/a@1 -Pod/b   of the desired set
//	durable SEQ                  the driver has stored a batch
//	needmap, ping, open STREAM, bye CODE TEXT...
//	complete right|wrong         by the hash of the agent's copy
//	have Kind/uid@version...     the hub's map of the reports
//	applied SEQ right|wrong      the hub has stored a batch of reports
//	report|once|forget Kind/uid[@version]  the set of reports changes
//	nudge own|all|other          by the session's tag
//	noise                        a frame of this session that nobody has sealed
//	stop, fail TEXT...           the driver ends it
//	deaf on|off                  nothing gets to the hub, and nothing from there
//	pass DURATION                lines carry the time since
//	wake                         when the session wants a turn
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(t *testing.T) func([]string) []string {
		r := newRig(t)
		return func(command []string) []string {
			r.command(command)
			r.exchange()
			events := r.events
			r.events = nil
			return events
		}
	})
}

// rig is a session, its driver and a hub that holds its keys.
type rig struct {
	t           *testing.T
	now         time.Time
	began       time.Time // of a pass; zero: none
	events      []string
	hubKey, key wire.StaticKey
	place       wire.Place
	epoch       uint64
	deaf        bool

	s        *Session
	desired  *wire.Copy
	revision uint64
	batches  map[uint64]*wire.Batch // passed to the driver, by number
	reports  *wire.Sender

	resp *wire.Responder // the hub's; nil: no knock has come
	pipe *wire.Pipe      // nil: no hello has come
	hash wire.Hash       // of the last batch of reports that has come to the hub
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Unix(1e9, 0), desired: wire.NewCopy(), reports: wire.NewSender()}
	var err error
	r.hubKey, err = wire.NewStaticKey(rand.Reader)
	r.check(err)
	r.key, err = wire.NewStaticKey(rand.Reader)
	r.check(err)
	return r
}

func (r *rig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) log(format string, args ...any) {
	if !r.began.IsZero() {
		format = "[" + r.now.Sub(r.began).Round(time.Second).String() + "] " + format
	}
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *rig) start() {
	r.epoch++
	r.place = wire.Place{Cluster: "c", Node: "n", Tag: wire.Tag{byte(r.epoch)}}
	r.resp, r.pipe, r.batches, r.deaf = nil, nil, map[uint64]*wire.Batch{}, false
	r.reports.End()
	var err error
	r.s, err = New(r.now, Config{
		Place: r.place, Key: r.key, Hub: r.hubKey.Public, Hello: wire.Hello{Epoch: r.epoch}, Desired: r.desired,
		Revision: func() uint64 { return r.revision }, Reports: r.reports,
	})
	r.check(err)
}

func (r *rig) command(f []string) {
	r.t.Helper()
	text := func(from int) string { return strings.Join(f[from:], " ") }
	switch f[0] {
	case "start":
		r.start()
	case "challenge":
		r.challenge(len(f) > 1)
	case "welcome":
		up := r.reports.Hash()
		switch f[1] {
		case "empty":
			up = wire.Hash{}
		case "other":
			up[0]++
		}
		r.say(&wire.Welcome{Version: wire.Version, Node: "n1", Up: up})
	case "refuse":
		r.say(&wire.Refuse{Code: wire.Code(f[1]), Message: text(2)})
	case "batch":
		b, err := wiretest.ParseBatch(f[1:], r.desired)
		r.check(err)
		r.say(b)
	case "needmap":
		r.say(&wire.NeedMap{})
	case "ping":
		r.say(&wire.Ping{})
	case "open":
		r.say(&wire.Open{Stream: f[1]})
	case "bye":
		r.say(&wire.Bye{Code: wire.Code(f[1]), Message: text(2)})
	case "complete":
		r.say(&wire.Complete{Hash: flaw(r.desired.Hash(), f[1])})
	case "have":
		h := &wire.Have{}
		for _, a := range f[1:] {
			e, err := wiretest.ParseEntry(a)
			r.check(err)
			h.Entries = append(h.Entries, e)
		}
		r.say(h)
	case "applied":
		b, err := wiretest.ParseBatch(f[1:2], r.desired)
		r.check(err)
		r.say(&wire.Applied{Seq: b.Seq, Hash: flaw(r.hash, f[2])})
	default:
		r.drive(f)
	}
}

// drive are the commands that are not the hub's.
func (r *rig) drive(f []string) {
	r.t.Helper()
	switch f[0] {
	case "durable":
		b, err := wiretest.ParseBatch(f[1:], r.desired)
		r.check(err)
		r.desired.Apply(r.batches[b.Seq])
		r.s.Applied(b.Seq, r.desired.Hash())
	case "report", "once":
		e, err := wiretest.ParseEntry(f[1])
		r.check(err)
		r.reports.Set(&wire.Object{ID: e.ID, Version: e.Version}, f[0] == "once")
	case "forget":
		e, err := wiretest.ParseEntry(f[1])
		r.check(err)
		r.reports.Remove(e.ID)
	case "nudge":
		tag := map[string]wire.Tag{"own": r.place.Tag, "all": {}, "other": {99}}[f[1]]
		r.s.Frame(r.now, wire.NudgeFrame(tag))
	case "noise":
		r.s.Frame(r.now, append([]byte{4}, append(r.place.Tag[:], make([]byte, 40)...)...))
	case "stop":
		r.s.Stop()
	case "fail":
		r.s.Fail(errors.New(strings.Join(f[1:], " ")))
	case "deaf":
		r.deaf = f[1] == "on"
	case "pass":
		d, err := time.ParseDuration(f[1])
		r.check(err)
		r.pass(d)
	case "wake":
		if w := r.s.Wake(); w.IsZero() {
			r.log("never")
		} else {
			r.log("in %v", w.Sub(r.now).Round(time.Second))
		}
	default:
		r.t.Fatalf("no command %q", f[0])
	}
}

// flaw is a hash as it should be, or not.
func flaw(h wire.Hash, how string) wire.Hash {
	if how == "wrong" {
		h[0]++
	}
	return h
}

// challenge answers the knock, with a key that is not the hub's when it is false.
func (r *rig) challenge(false bool) {
	if !false {
		r.s.Frame(r.now, r.resp.Challenge())
		return
	}
	other, err := wire.NewStaticKey(rand.Reader)
	r.check(err)
	i, err := wire.NewInitiator(r.place, r.key, other.Public, nil)
	r.check(err)
	resp, err := wire.NewResponder(r.place, other, i.Knock(), nil)
	r.check(err)
	r.s.Frame(r.now, resp.Challenge())
}

// say has the hub send a message.
func (r *rig) say(m wire.Message) {
	r.t.Helper()
	if r.pipe == nil {
		r.t.Fatalf("the hub has no pipe yet for %T", m)
	}
	r.pipe.Send(m)
}

// pass lets time pass, and gives the session its turns.
func (r *rig) pass(d time.Duration) {
	r.began = r.now
	for end := r.now.Add(d); r.now.Before(end); r.exchange() {
		r.now = end
		if w := r.s.Wake(); !w.IsZero() && w.Before(end) {
			r.now = w
		}
	}
	r.began = time.Time{}
}

// exchange carries frames both ways until none is left and all is acknowledged.
func (r *rig) exchange() {
	r.t.Helper()
	for quiet := 0; quiet < 2; {
		quiet++
		out := r.s.Drain(r.now)
		r.do(out)
		for _, f := range out.Frames {
			quiet = 0
			r.hub(f)
		}
		if r.pipe != nil && !r.deaf {
			frames, err := r.pipe.Flush(r.now)
			r.check(err)
			for _, f := range frames {
				quiet = 0
				r.s.Frame(r.now, f)
			}
		}
		if out.Welcome != nil || len(out.Apply)+len(out.Handed)+len(out.Open) > 0 {
			quiet = 0
		}
		if r.deaf || r.pipe == nil {
			return
		}
		r.now = r.now.Add(200 * time.Millisecond) // acknowledgements are out
	}
}

// do is the driver.
func (r *rig) do(out Output) {
	if out.Welcome != nil {
		r.log("open, as %s", out.Welcome.Node)
	}
	for _, b := range out.Apply {
		r.batches[b.Seq] = b
		r.log("to store %s", wiretest.Batch(b))
	}
	for _, b := range out.Handed {
		r.log("handed over %s", wiretest.Batch(b))
	}
	for _, o := range out.Open {
		r.log("to serve stream %s", o.Stream)
	}
	if out.Complete {
		r.log("complete")
	}
	if out.End != nil {
		r.log("ends: %v", out.End)
	}
}

// hub takes a frame.
func (r *rig) hub(frame []byte) {
	r.t.Helper()
	typ, _, err := wire.Peek(frame)
	r.check(err)
	switch typ {
	case wire.FrameKnock:
		r.log("knocks")
		if r.resp == nil {
			r.resp, err = wire.NewResponder(r.place, r.hubKey, frame, nil)
			r.check(err)
		} else if !r.resp.Again(frame) {
			r.t.Error("a knock that is repeated is another one")
		}
	case wire.FrameHello:
		if r.pipe != nil {
			r.log("says hello again")
			return
		}
		h, _, pipe, err := r.resp.Hello(frame)
		r.check(err)
		r.log("says hello, version %d, epoch %d, copy %s", h.Version, h.Epoch, map[bool]string{true: "as it is", false: "wrong"}[h.Down == r.desired.Hash()])
		r.pipe = pipe
	default:
		if r.deaf {
			return
		}
		msgs, err := r.pipe.Receive(r.now, frame)
		r.check(err)
		for _, m := range msgs {
			if b, ok := m.(*wire.Batch); ok {
				r.hash = b.Hash
			}
			r.log("says %s", wiretest.Text(m, r.desired.Hash()))
		}
	}
}
