package wire

// Shared is the part of many senders' sets that is the same for all of them: on a hub, every Service and every node's pod
// network, for every node. A thousand nodes that each get a thousand others would cost a million entries otherwise;
// with it, a sender remembers only those objects in which its peer differs.
//
// The owner that changes it notifies each of its senders at once (Sender.SharedChanged). It is owned by one goroutine, like they are.
type Shared struct {
	objects map[ID]*Object
	hash    Hash
}

// NewShared makes an empty one.
func NewShared() *Shared { return &Shared{objects: map[ID]*Object{}} }

// Put adds or replaces an object, and gives the one before.
func (c *Shared) Put(o *Object) (before *Object) {
	before = c.Remove(o.ID)
	c.objects[o.ID] = o
	c.hash.Add(o.ID, o.Version)
	return before
}

// Remove takes an object out, and gives it.
func (c *Shared) Remove(id ID) (before *Object) {
	if before = c.objects[id]; before != nil {
		c.hash.Remove(id, before.Version)
		delete(c.objects, id)
	}
	return before
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

// SharedChanged takes a change of the shared part in: before is what Put or Remove gave, now the object as it is; nil: none.
func (s *Sender) SharedChanged(id ID, before, now *Object) {
	if id == s.except || before != nil && now != nil && before.Version == now.Version {
		return
	}
	if s.members[id] == nil {
		m := &member{obj: before}
		if before != nil {
			m.peer, m.hasPeer = before.Version, true
		}
		s.members[id] = m
	}
	if now != nil {
		s.Set(now, false)
	} else {
		s.Remove(id)
	}
}

// at is the member of an id, made when there is none: a shared object that has no member is with the peer as it is.
func (s *Sender) at(id ID) *member {
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
