package session

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/internal/scripttest"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// The session alone, against a node that does as the script says (testdata/*.txt). Commands:
//
//	knock                        a new connection of the node; the desired set and what is remembered of reports stay
//	again                        the node repeats its knock
//	hello [version=V] [foreign]  foreign: on the topics of another device
//	accept equal|other|empty     the driver opens the session; how the node's copy is to the desired set
//	refuse CODE TEXT...          the driver refuses it
//	put|remove Kind/uid[@version]  the desired set changes
//	applied SEQ: right|wrong     the node has stored a batch
//	have Kind/uid@version...     the node's map of the desired set
//	batch SEQ: +PodStatus/a@1    reports
//	needmap, ping, pong, bye
//	committed SEQ                the driver has stored a batch of reports
//	settle, probe, stream ID     the driver's
//	fail TEXT..., end CODE TEXT...
//	deaf on|off                  nothing gets to the node, and nothing from there
//	pass DURATION                lines carry the time since
//	owes                         since when the node leaves a frame unacknowledged
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(t *testing.T) func([]string) []string {
		r := newPlay(t)
		return func(command []string) []string {
			r.command(command)
			r.exchange()
			events := r.events
			r.events = nil
			return events
		}
	})
}

// play is a session, its driver and a node that holds its keys.
type play struct {
	t           *testing.T
	now         time.Time
	began       time.Time // of a pass; zero: none
	events      []string
	hubKey, key wire.StaticKey
	tags        byte
	deaf        bool

	s    *Session
	down *wire.Sender
	up   *wire.Copy

	init *wire.Initiator
	pipe *wire.Pipe // the node's; nil: no hello has been sent
	last []byte     // challenge of the hub
	hash wire.Hash  // of the last batch that has come to the node
}

// same is a source of keys that are the same in each run, since errors name devices.
type same byte

func (s same) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s) + byte(i)
	}
	return len(b), nil
}

func newPlay(t *testing.T) *play {
	t.Helper()
	r := &play{t: t, now: time.Unix(1e9, 0), down: wire.NewSender(), up: wire.NewCopy()}
	var err error
	r.hubKey, err = wire.NewStaticKey(same(1))
	check(t, err)
	r.key, err = wire.NewStaticKey(same(2))
	check(t, err)
	return r
}

func (r *play) log(format string, args ...any) {
	if !r.began.IsZero() {
		format = "[" + r.now.Sub(r.began).Round(time.Second).String() + "] " + format
	}
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *play) knock() {
	if r.s != nil {
		r.s.Fail(errors.New("a newer connection"))
	}
	r.tags++
	r.pipe, r.deaf = nil, false
	hello := &wire.Hello{}
	place := wire.Place{Cluster: "c", Node: wire.NodeID(wire.Fingerprint(hello.TLSKey[:], r.key.Public)), Tag: wire.Tag{r.tags}}
	var err error
	r.init, err = wire.NewInitiator(place, r.key, r.hubKey.Public, nil)
	check(r.t, err)
	r.s, err = New(r.now, place, r.hubKey, r.init.Knock())
	check(r.t, err)
}

func (r *play) hello(f []string) {
	r.t.Helper()
	h := &wire.Hello{Version: wire.Version, Epoch: uint64(r.tags)}
	for _, a := range f {
		if v, ok := strings.CutPrefix(a, "version="); ok {
			_, err := fmt.Sscan(v, &h.Version)
			check(r.t, err)
		}
		if a == "foreign" {
			h.TLSKey[0] = 1
		}
	}
	frame, pipe, err := r.init.Challenge(r.last, h)
	check(r.t, err)
	r.pipe = pipe
	r.s.Frame(r.now, frame)
}

func (r *play) command(f []string) {
	r.t.Helper()
	text := func(from int) string { return strings.Join(f[from:], " ") }
	switch f[0] {
	case "knock":
		r.knock()
	case "again":
		r.s.Frame(r.now, r.init.Knock())
	case "hello":
		r.hello(f[1:])
	case "accept":
		peer := r.down.Hash()
		switch f[1] {
		case "empty":
			peer = wire.Hash{}
		case "other":
			peer[0]++
		}
		r.s.Accept(wire.Welcome{Node: "n1"}, r.down, peer, r.up, func() uint64 { return 7 })
	case "refuse":
		r.s.Refuse(r.now, wire.Refuse{Code: wire.Code(f[1]), Message: text(2)})
	case "put", "remove":
		e, err := wiretest.ParseEntry(f[1])
		check(r.t, err)
		if f[0] == "put" {
			r.down.Set(&wire.Object{ID: e.ID, Version: e.Version}, false)
		} else {
			r.down.Remove(e.ID)
		}
	case "committed":
		b, err := wiretest.ParseBatch(f[1:], r.up)
		check(r.t, err)
		r.s.Committed(b.Seq)
	case "settle":
		r.s.Settle()
	case "probe":
		r.s.Probe(r.now)
	case "stream":
		r.s.OpenStream(&wire.Open{Stream: f[1]})
	case "fail":
		r.s.Fail(errors.New(text(1)))
	case "end":
		r.s.Bye(r.now, wire.Code(f[1]), text(2))
	case "deaf":
		r.deaf = f[1] == "on"
	case "pass":
		d, err := time.ParseDuration(f[1])
		check(r.t, err)
		r.pass(d)
	case "owes":
		if since := r.s.Unanswered(); since.IsZero() {
			r.log("nothing")
		} else {
			r.log("for %v", r.now.Sub(since).Round(time.Second))
		}
	default:
		r.node(f)
	}
}

// node are the commands that have the node say something.
func (r *play) node(f []string) {
	r.t.Helper()
	var m wire.Message
	switch f[0] {
	case "applied":
		b, err := wiretest.ParseBatch(f[1:2], r.up)
		check(r.t, err)
		h := r.hash
		if f[2] == "wrong" {
			h[0]++
		}
		m = &wire.Applied{Seq: b.Seq, Hash: h}
	case "have":
		h := &wire.Have{}
		for _, a := range f[1:] {
			e, err := wiretest.ParseEntry(a)
			check(r.t, err)
			h.Entries = append(h.Entries, e)
		}
		m = h
	case "batch":
		b, err := wiretest.ParseBatch(f[1:], r.up)
		check(r.t, err)
		m = b
	case "needmap":
		m = &wire.NeedMap{}
	case "ping":
		m = &wire.Ping{}
	case "pong":
		m = &wire.Pong{}
	case "bye":
		m = &wire.Bye{}
	default:
		r.t.Fatalf("no command %q", f[0])
	}
	r.pipe.Send(m)
}

// pass lets time pass, and gives the session its turns.
func (r *play) pass(d time.Duration) {
	r.began = r.now
	for end := r.now.Add(d); r.now.Before(end); r.exchange() {
		next := end
		if w := r.s.Wake(); !w.IsZero() && w.Before(end) {
			next = w
		}
		r.now = next
	}
	r.began = time.Time{}
}

// exchange carries frames both ways until none is left and all is acknowledged.
func (r *play) exchange() {
	r.t.Helper()
	for quiet := 0; quiet < 2 && r.s != nil; {
		quiet++
		out := r.s.Drain(r.now)
		if r.do(out) {
			quiet = 0
		}
		for _, f := range out.Frames {
			quiet = 0
			r.toNode(f)
		}
		if r.pipe == nil || r.deaf {
			if quiet == 0 {
				continue
			}
			return
		}
		frames, err := r.pipe.Flush(r.now)
		check(r.t, err)
		for _, f := range frames {
			quiet = 0
			r.s.Frame(r.now, f)
		}
		r.now = r.now.Add(200 * time.Millisecond) // acknowledgements are out
	}
}

// do is the driver. It reports whether the session may have more to do.
func (r *play) do(out Output) (again bool) {
	if out.Hello != nil {
		r.log("to admit: version %d, epoch %d", out.Hello.Version, out.Hello.Epoch)
	}
	if out.Have != nil {
		r.log("map of %d", len(out.Have.Entries))
		r.s.Have(out.Have)
		again = true
	}
	for _, b := range out.Batches {
		r.log("to commit %s", wiretest.Batch(b))
	}
	for _, b := range out.Applied {
		r.log("stored by the node: %s", wiretest.Batch(b))
	}
	if out.Alive != nil {
		r.log("alive: %v", *out.Alive)
	}
	if out.Ended {
		r.log("ends: %v", out.Err)
	}
	return again
}

// toNode takes a frame.
func (r *play) toNode(frame []byte) {
	r.t.Helper()
	typ, _, err := wire.Peek(frame)
	check(r.t, err)
	if typ == wire.FrameChallenge {
		r.log("answers with a challenge")
		r.last = frame
		return
	}
	if r.deaf || r.pipe == nil {
		return
	}
	msgs, err := r.pipe.Receive(r.now, frame)
	check(r.t, err)
	for _, m := range msgs {
		if b, ok := m.(*wire.Batch); ok {
			r.hash = b.Hash
		}
		right := r.down.Hash()
		if a, ok := m.(*wire.Applied); ok && a.Hash == r.up.Hash() {
			right = a.Hash
		}
		if w, ok := m.(*wire.Welcome); ok && w.Up == r.up.Hash() {
			right = w.Up
		}
		r.log("says %s", wiretest.Text(m, right))
	}
}
