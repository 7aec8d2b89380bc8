package wire

import (
	"cmp"
	"slices"
)

// batchBytes is about how much content one batch carries; a single larger object still goes, alone.
const batchBytes = 256 << 10

// maxMisses is how often in a row a peer may come to the wrong hash.
const maxMisses = 3

// Sender keeps a peer's copy of a set equal to its own, by differences. It is pure; one batch is unanswered at a time,
// and what changes meanwhile coalesces. The owner of the set calls Set and Remove at any time, in or out of a session;
// Begin starts a session. In a session it learns what the peer has (Begin with equal hashes, or Have), and from then on
// Next gives batches until nothing differs.
type Sender struct {
	members map[ID]*member
	hash    Hash // of the standing members' wanted versions, shared ones included
	dirty   map[ID]struct{}
	base    *Shared  // nil: nothing is shared; its ids are no others'. Invariant: what is in it and in neither members nor behind is with the peer
	except  ID       // of base, not in the set
	behind  []*Round // of base, that the peer gets as they are, oldest first; no id in them is in members; empty unless phaseKnown
	rounds  bool     // the peer understands rounds
	most    int      // how many members there have been

	phase   phase
	peer    Hash // of the peer's copy, as far as batches answered
	seq     uint64
	flight  *Batch
	expect  Hash // after flight
	needMap bool // a NeedMap waits to be sent
	misses  int  // batches in a row that came to another hash
}

type phase uint8

const (
	phaseIdle    phase = iota // no session
	phaseUnknown              // waiting for Have
	phaseKnown                // members' peer fields are right
)

// member is an object that we want the peer to have, or that the peer has, or both.
type member struct {
	obj     *Object // nil: not wanted
	once    bool
	peer    uint64
	hasPeer bool
}

// NewSender makes a sender of an empty set.
func NewSender() *Sender {
	return &Sender{members: map[ID]*member{}, dirty: map[ID]struct{}{}}
}

// Set puts an object into the set, or replaces it. The object is shared: nobody may change it afterwards. A once object
// is handed over and then forgotten; it is not part of the hash.
func (s *Sender) Set(o *Object, once bool) {
	m := s.at(o.ID)
	if m.obj != nil && !m.once {
		if !once && m.obj.Version == o.Version {
			return
		}
		s.hash.Remove(o.ID, m.obj.Version)
	}
	m.obj, m.once = o, once
	if !once {
		s.hash.Add(o.ID, o.Version)
	}
	s.touch(o.ID, m)
}

// Remove takes an object out of the set.
func (s *Sender) Remove(id ID) {
	m := s.at(id)
	if m.obj != nil && !m.once {
		s.hash.Remove(id, m.obj.Version)
	}
	m.obj, m.once = nil, false
	s.touch(id, m)
}

// touch brings dirty and members in line with what differs.
func (s *Sender) touch(id ID, m *member) {
	s.most = max(s.most, len(s.members))
	switch {
	case m.obj == nil && !m.hasPeer:
		delete(s.dirty, id)
		delete(s.members, id)
	case m.obj != nil && !m.once && m.hasPeer && m.peer == m.obj.Version:
		delete(s.dirty, id)
		if o := s.shared(id); o != nil && o.Version == m.obj.Version {
			delete(s.members, id)
		}
	default:
		s.dirty[id] = struct{}{}
	}
}

// Hash is the hash of the set.
func (s *Sender) Hash() Hash { return s.hash }

// Get is the wanted object of an id.
func (s *Sender) Get(id ID) (*Object, bool) {
	if m := s.members[id]; m != nil {
		return m.obj, m.obj != nil
	}
	o := s.shared(id)
	return o, o != nil
}

// Len is how many members the set has.
func (s *Sender) Len() int {
	n := 0
	s.Members(func(*Object, bool) { n++ })
	return n
}

// UseRounds has what is shared sent as rounds, which peers understand since version 3. Call it before Begin.
func (s *Sender) UseRounds() { s.rounds = true }

// Begin starts a session with a peer whose copy has the given hash.
func (s *Sender) Begin(peer Hash) {
	s.seq, s.flight, s.needMap, s.peer, s.misses = 0, nil, false, peer, 0
	switch {
	case peer == s.hash:
		s.learn(nil, true)
	case peer.IsZero():
		s.learn(nil, false)
	default:
		s.phase, s.needMap = phaseUnknown, true
	}
}

// End ends the session.
func (s *Sender) End() { s.phase, s.flight, s.needMap, s.behind = phaseIdle, nil, false, nil }

// learn sets what the peer has: all that we want (equal), or exactly the entries.
func (s *Sender) learn(entries map[ID]uint64, equal bool) {
	s.phase = phaseKnown
	s.learnShared(entries, equal)
	for id, m := range s.members {
		if equal {
			m.hasPeer = m.obj != nil && !m.once
			if m.hasPeer {
				m.peer = m.obj.Version
			}
		} else {
			m.peer, m.hasPeer = entries[id], false
			if _, ok := entries[id]; ok {
				m.hasPeer = true
			}
		}
		s.touch(id, m)
	}
	for id, v := range entries {
		if s.members[id] == nil && s.shared(id) == nil {
			m := &member{peer: v, hasPeer: true}
			s.members[id] = m
			s.touch(id, m)
		}
	}
}

// Have takes the peer's map, and reports whether it was asked for. An answer that was not is ignored.
func (s *Sender) Have(h *Have) (asked bool) {
	if s.phase != phaseUnknown || s.needMap {
		return false
	}
	entries := make(map[ID]uint64, len(h.Entries))
	s.peer = Hash{}
	for _, e := range h.Entries {
		if _, ok := entries[e.ID]; !ok {
			entries[e.ID] = e.Version
			s.peer.Add(e.ID, e.Version)
		}
	}
	s.learn(entries, false)
	return true
}

// Next is what to say now: NeedMap, a batch, or nil.
func (s *Sender) Next(revision uint64) Message {
	if s.needMap {
		s.needMap = false
		return &NeedMap{}
	}
	if s.phase != phaseKnown || s.Diverged() || s.flight != nil || len(s.dirty)+len(s.behind) == 0 {
		return nil
	}
	b := &Batch{Seq: s.seq + 1, Revision: revision}
	s.expect = s.peer
	size := s.takeRounds(b)
	for _, id := range s.order() {
		if size >= batchBytes {
			break
		}
		m := s.members[id]
		if m.hasPeer {
			s.expect.Remove(id, m.peer)
		}
		if m.obj == nil {
			b.Deletes = append(b.Deletes, id)
			size += 64
		} else {
			if !m.once {
				s.expect.Add(id, m.obj.Version)
			}
			b.Puts = append(b.Puts, Put{Object: *m.obj, Once: m.once})
			size += len(m.obj.Data) + 128
		}
		delete(s.dirty, id)
	}
	b.Hash = s.expect
	s.seq++
	s.flight = b
	return b
}

// takeRounds moves rounds into a batch, at least one if there is any, and returns how many bytes they take.
func (s *Sender) takeRounds(b *Batch) (size int) {
	n := 0
	for ; n < len(s.behind) && size < batchBytes; n++ {
		r := s.behind[n]
		b.Rounds = append(b.Rounds, r.bytes())
		size += len(r.bytes())
		s.expect[0] += r.diff[0]
		s.expect[1] += r.diff[1]
	}
	if s.behind = s.behind[n:]; len(s.behind) == 0 {
		s.behind = nil
	}
	return size
}

// order lists what differs so that, however it is cut into batches, a pod comes after what it refers to and goes before.
func (s *Sender) order() []ID {
	ids := make([]ID, 0, len(s.dirty))
	for id := range s.dirty {
		ids = append(ids, id)
	}
	rank := func(id ID) int {
		pod, gone := id.Kind == KindPod, s.members[id].obj == nil
		switch {
		case !gone && !pod:
			return 0
		case !gone:
			return 1
		case pod:
			return 2
		}
		return 3
	}
	slices.SortFunc(ids, func(a, b ID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.UID, b.UID))
	})
	return ids
}

// Applied takes the peer's answer to the batch in flight and returns that batch; nil for an answer to anything else.
// When the peer has come to another hash than it should, its map is asked for again.
func (s *Sender) Applied(a *Applied) *Batch {
	b := s.flight
	if b == nil || a.Seq != b.Seq {
		return nil
	}
	s.flight = nil
	for i := range b.Puts {
		p := &b.Puts[i]
		m := s.at(p.ID)
		m.hasPeer, m.peer = !p.Once, p.Version
		if p.Once && m.obj != nil && m.once && m.obj.Version == p.Version {
			m.obj, m.once = nil, false // handed over
		}
		s.touch(p.ID, m)
	}
	for _, id := range b.Deletes {
		m := s.at(id)
		m.hasPeer = false
		s.touch(id, m)
	}
	if len(s.dirty) == 0 {
		s.slim()
	}
	s.peer = s.expect
	if a.Hash == s.expect {
		s.misses = 0
	} else {
		s.misses++
		s.phase, s.needMap = phaseUnknown, true
	}
	return b
}

// Diverged reports whether the peer keeps coming to another hash than it should, though its map was asked for each time. The
// session should end: going on would only make traffic.
func (s *Sender) Diverged() bool { return s.misses > maxMisses }

// Settled reports whether the peer is known to have everything.
func (s *Sender) Settled() bool {
	return s.phase == phaseKnown && s.flight == nil && len(s.dirty) == 0 && len(s.behind) == 0
}

// Members calls f for each wanted member, in no order.
func (s *Sender) Members(f func(o *Object, once bool)) {
	for _, m := range s.members {
		if m.obj != nil {
			f(m.obj, m.once)
		}
	}
	if s.base != nil {
		for id, o := range s.base.objects {
			if id != s.except && s.members[id] == nil {
				f(o, false)
			}
		}
	}
}

// Copy is the receiving side's knowledge of a set: versions and hash, no content. The hub keeps one of each node's
// reports; an agent's cache keeps the like with content.
type Copy struct {
	versions map[ID]uint64
	hash     Hash
	bytes    int // about what it takes in memory
}

// entryBytes is about what an entry of a Copy takes, besides its UID.
const entryBytes = 64

// NewCopy makes an empty copy.
func NewCopy() *Copy { return &Copy{versions: map[ID]uint64{}} }

// Apply takes a batch in.
func (c *Copy) Apply(b *Batch) {
	for _, id := range b.Deletes {
		c.drop(id)
	}
	for i := range b.Puts {
		p := &b.Puts[i]
		c.drop(p.ID)
		if !p.Once {
			c.versions[p.ID] = p.Version
			c.hash.Add(p.ID, p.Version)
			c.bytes += len(p.UID) + entryBytes
		}
	}
}

func (c *Copy) drop(id ID) {
	if v, ok := c.versions[id]; ok {
		c.hash.Remove(id, v)
		delete(c.versions, id)
		c.bytes -= len(id.UID) + entryBytes
	}
}

// Bytes is about what the copy takes in memory. Its peer decides that, so its holder has to bound it.
func (c *Copy) Bytes() int { return c.bytes }

// Hash is the copy's hash.
func (c *Copy) Hash() Hash { return c.hash }

// Entries is the copy's map.
func (c *Copy) Entries() []Entry {
	out := make([]Entry, 0, len(c.versions))
	for id, v := range c.versions {
		out = append(out, Entry{id, v})
	}
	return out
}
