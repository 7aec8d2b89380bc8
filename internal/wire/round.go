package wire

import "slices"

// maxBehind is how many rounds wait for one peer as they are. A peer that is further behind gets the objects as they are by then.
const maxBehind = 16

// Round is one change of what is shared. It is immutable once it is cut, and encoded once for all peers that get it.
type Round struct {
	changes []sharedChange // each object once
	at      map[ID]int     // indices in changes
	diff    Hash           // of the shared part's hashes after and before
	packed  []byte         // as peers get it; nil: nobody has needed it yet
	raw     int            // bytes before they were packed; set with packed
}

// sharedChange is one object's change in a round; nil: it was not there, or is gone.
type sharedChange struct {
	id          ID
	before, now *Object
}

// What a round does with an object.
const (
	roundDelete byte = iota // nothing follows
	roundPut                // version, namespace, name, content
	roundPatch              // version before, version, delta of the content
)

// bytes returns the round as peers get it: a byte that says whether what follows is packed; then, for each object, what to do,
// its id, and what it takes.
func (r *Round) bytes() []byte {
	if r.packed != nil {
		return r.packed
	}
	var e encoder
	for i := range r.changes {
		c := &r.changes[i]
		switch {
		case c.now == nil && c.before == nil, c.now != nil && c.before != nil && c.now.Version == c.before.Version:
		case c.now == nil:
			e.b = append(e.b, roundDelete)
			e.id(c.id)
		default:
			e.change(c)
		}
	}
	r.raw = len(e.b)
	b, packed := pack(e.b)
	head := byte(0)
	if packed {
		head = 1
	}
	r.packed = slices.Concat([]byte{head}, b)
	return r.packed
}

// maxRound bounds a round, unpacked, so that a peer can take in several at a time.
const maxRound = MaxMessage / maxBehind

// large reports whether a round is too large to go in one piece: a thousand Services that are made at a time. Its objects go one by one.
func (r *Round) large() bool { return len(r.bytes()) > batchBytes || r.raw > maxRound }

// change appends an object that a round puts: its difference, when that is shorter and its version is one that the peer can check.
func (e *encoder) change(c *sharedChange) {
	if c.before != nil && c.before.Namespace == c.now.Namespace && c.before.Name == c.now.Name && c.now.Version == ContentVersion(c.now) {
		if d := makeDelta(c.before.Data, c.now.Data); len(d) < len(c.now.Data) {
			e.b = append(e.b, roundPatch)
			e.id(c.id)
			e.fixed(c.before.Version)
			e.fixed(c.now.Version)
			e.bytes(d)
			return
		}
	}
	e.b = append(e.b, roundPut)
	e.id(c.id)
	e.fixed(c.now.Version)
	e.string(c.now.Namespace)
	e.string(c.now.Name)
	e.bytes(c.now.Data)
}

// Expand returns the plain batch that a batch comes to on a copy of the set: have returns an object of that copy. What does
// not fit the copy, or cannot be read, is left out; the copy then has another hash than the batch says, and the sender asks for its map.
// The result may alias the batch and the copy's objects.
func (b *Batch) Expand(have func(ID) (Object, bool)) *Batch {
	if len(b.Rounds) == 0 {
		return b
	}
	x := expansion{have: have, at: map[ID]int{}, room: MaxMessage}
	for _, packed := range b.Rounds {
		x.round(packed)
	}
	out := &Batch{Seq: b.Seq, Revision: b.Revision, Hash: b.Hash, Deletes: slices.Clone(b.Deletes)}
	for i := range x.list {
		if o := &x.list[i]; o.gone {
			out.Deletes = append(out.Deletes, o.ID)
		} else {
			out.Puts = append(out.Puts, Put{Object: o.Object})
		}
	}
	out.Puts = append(out.Puts, b.Puts...)
	return out
}

// expansion is what rounds come to, one after the other.
type expansion struct {
	have func(ID) (Object, bool)
	list []expanded
	at   map[ID]int // indices in list
	room int        // how many bytes all may still take
}

type expanded struct {
	Object
	gone bool
}

func (x *expansion) set(o Object, gone bool) {
	if i, ok := x.at[o.ID]; ok {
		x.list[i] = expanded{o, gone}
		return
	}
	x.at[o.ID] = len(x.list)
	x.list = append(x.list, expanded{o, gone})
}

// get returns an object as it is after the changes so far.
func (x *expansion) get(id ID) (Object, bool) {
	if i, ok := x.at[id]; ok {
		return x.list[i].Object, !x.list[i].gone
	}
	return x.have(id)
}

func (x *expansion) round(b []byte) {
	if len(b) == 0 {
		return
	}
	packed, b := b[0], b[1:]
	if packed == 1 {
		var err error
		if b, err = unpack(b, x.room); err != nil {
			return
		}
	}
	x.room -= len(b)
	for d := (&decoder{b: b}); len(d.b) > 0 && d.err == nil && x.room > 0; {
		what := d.take(1)[0]
		id := d.id()
		switch what {
		case roundDelete:
			if d.err == nil {
				x.set(Object{ID: id}, true)
			}
		case roundPut:
			o := Object{ID: id, Version: d.fixed(), Namespace: d.string(), Name: d.string(), Data: d.bytes()}
			if d.err == nil {
				x.set(o, false)
			}
		case roundPatch:
			before, version, delta := d.fixed(), d.fixed(), d.bytes()
			if d.err == nil {
				x.patch(id, before, version, delta)
			}
		default: // of a later version; how long it is is not known
			return
		}
	}
}

// patch changes an object by a delta, if it is the one that the delta was made for and comes to what it should.
func (x *expansion) patch(id ID, before, version uint64, delta []byte) {
	o, ok := x.get(id)
	if !ok || o.Version != before {
		return
	}
	data, err := applyDelta(o.Data, delta, x.room)
	if err != nil {
		return
	}
	o.Data, o.Version = data, version
	if x.room -= len(data); ContentVersion(&o) == version {
		x.set(o, false)
	}
}
