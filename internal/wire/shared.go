package wire

// Shared is the part of many senders' sets that is the same for all of them: on a hub, every Service and every node's pod
// network, for every node. A thousand nodes that each get a thousand others would cost a million entries otherwise;
// with it, a sender remembers only those objects in which its peer differs.
//
// Its owner changes it with Put and Remove, then takes what has changed with Cut and passes it to each of its senders at once
// (Sender.SharedChanged). It is owned by one goroutine, like they are.
type Shared struct {
	objects map[ID]*Object
	hash    Hash
	open    *Round // what has changed since the last Cut; nil: nothing
}

// NewShared makes an empty one.
func NewShared() *Shared { return &Shared{objects: map[ID]*Object{}} }

// Put adds or replaces an object.
func (c *Shared) Put(o *Object) {
	c.record(o.ID, o)
	if before := c.objects[o.ID]; before != nil {
		c.hash.Remove(o.ID, before.Version)
	}
	c.objects[o.ID] = o
	c.hash.Add(o.ID, o.Version)
}

// Remove takes an object out.
func (c *Shared) Remove(id ID) {
	if before := c.objects[id]; before != nil {
		c.record(id, nil)
		c.hash.Remove(id, before.Version)
		delete(c.objects, id)
	}
}

// record notes that an object is about to change. Of several changes of one object, only the first and the last state count.
func (c *Shared) record(id ID, now *Object) {
	if c.open == nil {
		c.open = &Round{at: map[ID]int{}, diff: c.hash}
	}
	if i, ok := c.open.at[id]; ok {
		c.open.changes[i].now = now
		return
	}
	c.open.at[id] = len(c.open.changes)
	c.open.changes = append(c.open.changes, sharedChange{id, c.objects[id], now})
}

// Cut returns what has changed since it was called last; nil: nothing.
func (c *Shared) Cut() *Round {
	r := c.open
	c.open = nil
	if r == nil || r.diff == c.hash {
		return nil
	}
	r.diff = Hash{c.hash[0] - r.diff[0], c.hash[1] - r.diff[1]}
	return r
}

// NewSharing makes a sender whose set starts out as all of c.
func NewSharing(c *Shared) *Sender {
	s := NewSender()
	s.base, s.hash = c, c.hash
	return s
}

// Except leaves one shared object out: the one that is about the peer itself. Call it before Begin, or before the object
// is shared.
func (s *Sender) Except(id ID) {
	if o := s.shared(id); o != nil {
		s.hash.Remove(id, o.Version)
	}
	s.except = id
}

// shared is the shared object of an id that is in this sender's set; nil: none.
func (s *Sender) shared(id ID) *Object {
	if s.base == nil || id == s.except {
		return nil
	}
	return s.base.objects[id]
}

// SharedChanged takes a change of the shared part in. Most senders' peers have all that was shared before; they get the round
// as it is, which was encoded once. For others it becomes members.
func (s *Sender) SharedChanged(r *Round) {
	s.hash[0] += r.diff[0]
	s.hash[1] += r.diff[1]
	if i, ok := r.at[s.except]; ok {
		c := r.changes[i]
		if c.now != nil {
			s.hash.Remove(c.id, c.now.Version)
		}
		if c.before != nil {
			s.hash.Add(c.id, c.before.Version)
		}
	}
	if s.phase == phaseKnown && s.rounds && len(s.behind) < maxBehind && !s.differsIn(r) && !r.large() {
		s.behind = append(s.behind, r)
		return
	}
	s.splitRounds()
	s.absorb(r)
}

// differsIn reports whether the peer does not have, or must not get, an object of a round like other senders' peers.
func (s *Sender) differsIn(r *Round) bool {
	for i := range r.changes {
		if id := r.changes[i].id; id == s.except || s.members[id] != nil {
			return true
		}
	}
	return false
}

// splitRounds makes members of what waits in rounds.
func (s *Sender) splitRounds() {
	behind := s.behind
	s.behind = nil
	for _, r := range behind {
		s.absorb(r)
	}
}

// absorb makes members of a round's changes. Before it is known what the peer has, there is nothing to do but for members that
// exist: what the peer has will be compared with what is shared then.
func (s *Sender) absorb(r *Round) {
	for i := range r.changes {
		c := &r.changes[i]
		m := s.members[c.id]
		switch {
		case c.id == s.except, m == nil && s.phase != phaseKnown:
			continue
		case m == nil:
			m = &member{}
			if c.before != nil {
				m.peer, m.hasPeer = c.before.Version, true
			}
			s.members[c.id] = m
		}
		m.obj, m.once = c.now, false
		s.touch(c.id, m)
	}
}

// at is the member of an id, made when there is none: a shared object that has no member is with the peer as it is.
func (s *Sender) at(id ID) *member {
	for _, r := range s.behind {
		if _, ok := r.at[id]; ok {
			s.splitRounds()
			break
		}
	}
	m := s.members[id]
	if m == nil {
		if m = (&member{}); s.shared(id) != nil {
			m.obj = s.shared(id)
			m.peer, m.hasPeer = m.obj.Version, true
		}
		s.members[id] = m
	}
	return m
}

// learnShared makes members of the shared objects in which the peer differs from the set.
func (s *Sender) learnShared(entries map[ID]uint64, equal bool) {
	s.behind = nil // the comparison below is with all of it
	if s.base == nil {
		return
	}
	for id, o := range s.base.objects {
		v, has := entries[id]
		if id == s.except || equal || has && v == o.Version || s.members[id] != nil {
			continue
		}
		m := &member{obj: o, peer: v, hasPeer: has}
		s.members[id] = m
		s.touch(id, m)
	}
}

// slim gives the room of members that are gone back: maps keep it, and a first synchronisation needs much of it.
func (s *Sender) slim() {
	if s.most < 64 || len(s.members)*4 > s.most {
		return
	}
	members := make(map[ID]*member, len(s.members))
	for id, m := range s.members {
		members[id] = m
	}
	s.members, s.dirty, s.most = members, map[ID]struct{}{}, len(members)
}
