package link_test

import (
	"fmt"
	"maps"
	"time"

	agentsession "petrel.dev/petrel/edgeagent/link/session"
	hubsession "petrel.dev/petrel/hub/dispatch/session"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// world is both ends of a link with a net between them that does what it likes. Both ends are the real sessions; the
// store, the cache and the drivers are as small as can be.
type world struct {
	t   fataler
	now time.Time
	log func(format string, args ...any) // what happens, when set

	// Hub: what survives a restart, and what does not.
	store    map[wire.ID]wire.Object // desired
	taken    map[wire.ID]uint64      // reports made durable: latest version
	events   map[wire.ID]bool        // once reports made durable
	revision uint64
	backup   *world // an earlier state of the above
	hubs     map[wire.Tag]*hubsession.Session
	current  wire.Tag
	epoch    uint64
	up       *wire.Copy
	down     *wire.Sender
	base     *wire.Shared                     // of what all nodes get: Services
	allowed  map[wire.Tag]map[wire.Entry]bool // what a session may carry: what was in the set in its time
	wholes   map[wire.Tag]map[wire.Hash]bool  // what the set was as a whole, in a session's time

	// Agent: likewise.
	cache    *wire.Copy
	content  map[wire.ID]string
	versions map[wire.ID]uint64 // of content
	rev      uint64
	said     map[wire.ID]wire.Object // standing reports, latest
	unsaid   map[wire.ID]wire.Object // once reports, not confirmed
	allOnce  map[wire.ID]bool
	nextEp   uint64
	session  *agentsession.Session
	reports  *wire.Sender
	tag      wire.Tag
	tags     uint32
	complete bool // the hub has said so in this session
	applying []*wire.Batch

	// The net.
	toHub, toAgent [][]byte
	serial         uint64
	hubKey, devKey wire.StaticKey
	tls            [32]byte
	id             string
}

// fataler is what tests of all sorts have in common.
type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newWorld(t fataler) *world {
	hk, err := wire.NewStaticKey(nil2rand{})
	if err != nil {
		t.Fatal(err)
	}
	dk, err := wire.NewStaticKey(nil2rand{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, log: func(string, ...any) {}, now: time.Unix(0, 0), store: map[wire.ID]wire.Object{}, taken: map[wire.ID]uint64{}, events: map[wire.ID]bool{},
		allowed: map[wire.Tag]map[wire.Entry]bool{}, wholes: map[wire.Tag]map[wire.Hash]bool{}, cache: wire.NewCopy(), content: map[wire.ID]string{}, versions: map[wire.ID]uint64{},
		said: map[wire.ID]wire.Object{}, unsaid: map[wire.ID]wire.Object{}, allOnce: map[wire.ID]bool{},
		hubKey: hk, devKey: dk,
	}
	w.id = wire.NodeID(wire.Fingerprint(w.tls[:], dk.Public))
	w.restartHub()
	w.restartAgent()
	return w
}

// nil2rand is a poor but sufficient source for keys: the seal is not what the model is about.
type nil2rand struct{}

func (nil2rand) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i*7 + 3)
	}
	return len(b), nil
}

func (w *world) place(tag wire.Tag) wire.Place { return wire.Place{Cluster: "c", Node: w.id, Tag: tag} }

// ---- hub

func (w *world) restartHub() {
	w.hubs, w.up, w.down, w.current, w.epoch = map[wire.Tag]*hubsession.Session{}, wire.NewCopy(), nil, wire.Tag{}, 0
	w.base = wire.NewShared()
	for id, o := range w.store {
		if id.Kind == wire.KindService {
			w.base.Put(&o)
		}
	}
	w.base.Cut()
}

// nudge is what a hub that has just started tells the nodes it knows.
func (w *world) nudge() { w.toAgent = append(w.toAgent, wire.NudgeFrame(wire.Tag{})) }

func (w *world) change(id wire.ID, put bool) {
	w.serial++
	w.revision++
	o := wire.Object{ID: id, Version: w.serial, Data: fmt.Appendf(nil, "%d", w.serial)}
	if id.Kind == wire.KindService { // in the form of a Service, so that changes travel as differences
		o.Data = fmt.Appendf(nil, `[{"ip":"10.42.0.1","node":"a"},{"ip":"10.42.0.%d","node":"b"},{"ip":"10.42.1.1","node":"c"}]`, w.serial%5)
		o.Version = wire.ContentVersion(&o)
	}
	live := w.down != nil && w.hubs[w.current] != nil
	if put {
		w.store[id] = o
	} else {
		delete(w.store, id)
	}
	if live && put {
		w.allowed[w.current][wire.Entry{ID: id, Version: o.Version}] = true
	}
	switch {
	case id.Kind == wire.KindService:
		w.share(&o, put, live)
	case live && put:
		w.down.Set(&o, false)
	case live:
		w.down.Remove(id)
	}
	if live {
		w.wholes[w.current][w.storeHash()] = true
	}
	w.drainHub(w.current)
}

// share changes what all nodes get.
func (w *world) share(o *wire.Object, put, live bool) {
	if put {
		w.base.Put(o)
	} else {
		w.base.Remove(o.ID)
	}
	if r := w.base.Cut(); r != nil && live {
		w.down.SharedChanged(r)
	}
}

func (w *world) saveBackup() {
	w.backup = &world{store: maps.Clone(w.store), taken: maps.Clone(w.taken), events: maps.Clone(w.events), revision: w.revision}
}

func (w *world) restoreBackup() {
	if w.backup == nil {
		return
	}
	w.store, w.taken, w.revision = maps.Clone(w.backup.store), maps.Clone(w.backup.taken), w.backup.revision
	w.restartHub()
}

func (w *world) hubFrame(f []byte) {
	typ, tag, err := wire.Peek(f)
	if err != nil {
		w.t.Fatal(err)
	}
	s := w.hubs[tag]
	if s == nil {
		if typ != wire.FrameKnock {
			w.toAgent = append(w.toAgent, wire.NudgeFrame(tag))
			return
		}
		if s, err = hubsession.New(w.now, w.place(tag), w.hubKey, f); err != nil {
			return
		}
		w.hubs[tag] = s
	} else {
		s.Frame(w.now, f)
	}
	w.drainHub(tag)
}

func (w *world) drainHub(tag wire.Tag) {
	s := w.hubs[tag]
	for again := s != nil; again; {
		if tag == w.current {
			s.Settle()
		}
		out := s.Drain(w.now)
		again = false
		w.toAgent = append(w.toAgent, out.Frames...)
		if out.Hello != nil {
			again = true
			w.log("hub: hello of epoch %d, copy %s", out.Hello.Epoch, sameOr(out.Hello.Down, w.storeHash()))
			if out.Hello.Epoch <= w.epoch {
				w.log("hub: refuses")
				s.Refuse(w.now, wire.Refuse{Code: wire.CodeEpoch, Epoch: w.epoch})
				continue
			}
			if old := w.hubs[w.current]; old != nil && w.current != tag {
				old.Bye(w.now, wire.CodeReplaced, "")
				w.toAgent = append(w.toAgent, old.Drain(w.now).Frames...)
				delete(w.hubs, w.current)
			}
			w.current, w.epoch, w.down = tag, out.Hello.Epoch, wire.NewSharing(w.base)
			w.allowed[tag] = map[wire.Entry]bool{}
			w.wholes[tag] = map[wire.Hash]bool{w.storeHash(): true}
			for id, o := range w.store {
				w.allowed[tag][wire.Entry{ID: id, Version: o.Version}] = true
				if id.Kind != wire.KindService {
					w.down.Set(&o, false)
				}
			}
			s.Accept(wire.Welcome{}, w.down, out.Hello.Down, w.up, func() uint64 { return w.revision })
		}
		if out.Have != nil {
			w.log("hub: map of %d", len(out.Have.Entries))
			s.Have(out.Have)
			again = true
		}
		for _, b := range out.Batches {
			if tag != w.current {
				continue
			}
			w.log("hub: reports %s", wiretest.Batch(b))
			for _, p := range b.Puts {
				if p.Once {
					w.events[p.ID] = true
				} else {
					w.taken[p.ID] = p.Version
				}
			}
			for _, id := range b.Deletes {
				delete(w.taken, id)
			}
			s.Committed(b.Seq)
			again = true
		}
		if out.Ended {
			w.log("hub: session ends: %v", out.Err)
			delete(w.hubs, tag)
			if tag == w.current {
				w.down = nil
			}
			return
		}
	}
}

// ---- agent

func (w *world) restartAgent() {
	w.reports = wire.NewSender()
	for _, o := range w.said {
		w.reports.Set(&o, false)
	}
	for _, o := range w.unsaid {
		w.reports.Set(&o, true)
	}
	w.applying = nil
	w.connect()
}

// connect is a new connection: the old one's last words are said, and its frames may still be under way.
func (w *world) connect() {
	if w.session != nil {
		w.session.Fail(fmt.Errorf("connection lost"))
		w.toHub = append(w.toHub, wire.LiveFrame(w.tag, wire.LastWords{}))
	}
	w.reports.End()
	w.applying, w.complete = nil, false
	w.tags++
	w.nextEp++
	w.tag = wire.Tag{byte(w.tags >> 8), byte(w.tags), 1, 1}
	var err error
	w.session, err = agentsession.New(w.now, agentsession.Config{
		Place: w.place(w.tag), Key: w.devKey, Hub: w.hubKey.Public, Hello: wire.Hello{Epoch: w.nextEp, TLSKey: w.tls},
		Desired: w.cache, Revision: func() uint64 { return w.rev }, Reports: w.reports,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.drainAgent()
}

func (w *world) report(id wire.ID, once bool) {
	w.serial++
	o := wire.Object{ID: id, Version: w.serial}
	if once {
		o.ID.UID = fmt.Sprint(w.serial)
		w.unsaid[o.ID], w.allOnce[o.ID] = o, true
	} else {
		w.said[id] = o
	}
	w.reports.Set(&o, once)
	w.drainAgent()
}

func (w *world) forget(id wire.ID) {
	delete(w.said, id)
	w.reports.Remove(id)
	w.drainAgent()
}

func (w *world) agentFrame(f []byte) {
	w.session.Frame(w.now, f)
	w.drainAgent()
}

func (w *world) drainAgent() {
	for range 100 {
		out := w.session.Drain(w.now)
		w.toHub = append(w.toHub, out.Frames...)
		w.applying = append(w.applying, out.Apply...)
		if out.Welcome != nil {
			w.log("agent: welcome, its reports are %s", sameOr(out.Welcome.Up, w.reports.Hash()))
		}
		if out.Complete {
			w.log("agent: complete")
			w.complete = true
			if !w.wholes[w.tag][w.cache.Hash()] {
				w.t.Fatalf("complete, but the copy is nothing that the set was in this session")
			}
		}
		for _, b := range out.Handed {
			w.log("agent: handed over %s", wiretest.Batch(b))
			for _, p := range b.Puts {
				if o, ok := w.unsaid[p.ID]; ok && p.Once && o.Version == p.Version {
					delete(w.unsaid, p.ID)
				}
			}
		}
		if out.End != nil {
			w.log("agent: session ends: %v", out.End)
			w.connect()
			return
		}
		if out.Welcome == nil {
			return
		}
	}
	w.t.Fatal("the agent's session is never satisfied")
}

// applyOne makes the next batch durable. Until then a power cut loses it.
func (w *world) applyOne() {
	if len(w.applying) == 0 {
		return
	}
	b := w.applying[0]
	w.applying = w.applying[1:]
	b = b.Expand(w.object)
	for _, p := range b.Puts {
		if !w.allowed[w.tag][wire.Entry{ID: p.ID, Version: p.Version}] {
			w.t.Fatalf("applied %v version %d, which was not in the set since this session began", p.ID, p.Version)
		}
		w.content[p.ID], w.versions[p.ID] = string(p.Data), p.Version
	}
	for _, id := range b.Deletes {
		delete(w.content, id)
	}
	w.log("agent: applies %s", wiretest.Batch(b))
	w.cache.Apply(b)
	w.rev = b.Revision
	w.session.Applied(b.Seq, w.cache.Hash())
	w.drainAgent()
}

// object returns an object of the agent's copy.
func (w *world) object(id wire.ID) (wire.Object, bool) {
	data, ok := w.content[id]
	return wire.Object{ID: id, Version: w.versions[id], Data: []byte(data)}, ok
}

// damage loses an object of the cache, as a bad block would.
func (w *world) damage() {
	for _, e := range w.cache.Entries() {
		w.cache.Apply(&wire.Batch{Deletes: []wire.ID{e.ID}})
		delete(w.content, e.ID)
		break
	}
}

// ---- the net and time

func (w *world) deliver(q *[][]byte, i int, keep bool, to func([]byte)) {
	if len(*q) == 0 {
		return
	}
	i %= len(*q)
	f := (*q)[i]
	if !keep {
		*q = append((*q)[:i:i], (*q)[i+1:]...)
	}
	to(f)
}

func (w *world) drop(q *[][]byte, i int) {
	if len(*q) > 0 {
		i %= len(*q)
		*q = append((*q)[:i:i], (*q)[i+1:]...)
	}
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for tag := range maps.Clone(w.hubs) {
		w.drainHub(tag)
	}
	w.drainAgent()
}

// settle lets the net behave, and time pass, until nothing more happens.
func (w *world) settle() {
	for range 3000 {
		for busy := 0; len(w.toHub)+len(w.toAgent)+len(w.applying) > 0; busy++ {
			if busy > 10_000 {
				w.t.Fatal("never at rest: the two talk for ever")
			}
			w.deliver(&w.toHub, 0, false, w.hubIn)
			w.deliver(&w.toAgent, 0, false, w.agentFrame)
			w.applyOne()
		}
		if w.down != nil && w.session.Open() && w.down.Settled() && w.reports.Settled() && w.complete {
			return
		}
		if w.down == nil {
			w.nudge() // dispatch repeats it too
		}
		w.pass(time.Second)
	}
	w.t.Fatalf("does not settle: agent open %v, hub session %v, reports settled %v, complete %v", w.session.Open(), w.down != nil, w.reports.Settled(), w.complete)
}

func (w *world) hubIn(f []byte) {
	if typ, tag, _ := wire.Peek(f); typ == wire.FrameLive {
		if s := w.hubs[tag]; s != nil {
			s.Fail(fmt.Errorf("connection lost"))
			w.drainHub(tag)
		}
		return
	}
	w.hubFrame(f)
}
