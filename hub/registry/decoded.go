package registry

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// keepDecoded bounds how many recent revisions stay decoded. Current objects of kinds that loops read are kept by the
// cache anyway; this is for watches that follow close behind and for updates in quick succession.
const keepDecoded = 512

// decoded holds the typed form of recent revisions, so that each is made once for all who need it.
type decoded struct {
	mu     sync.Mutex
	byRev  map[sqlstore.Revision]*revision
	ring   [keepDecoded]sqlstore.Revision
	next   int
	handed map[string][]*handoff // by key: objects that writers are committing just now
	seed   maphash.Seed
}

// revision is one object as of one revision; obj is made by whoever comes first.
type revision struct {
	once sync.Once
	done atomic.Bool // obj and err may be read
	obj  kube.Object
	err  error
}

func (e *revision) fill(make func() (kube.Object, error)) (kube.Object, error) {
	e.once.Do(func() {
		e.obj, e.err = make()
		e.done.Store(true)
	})
	return e.obj, e.err
}

// handoff is an object that its writer has encoded but whose revision it does not know yet. The feed may see the commit
// before the writer does, so both may settle it; the content's hash tells it from what a rival wrote to the same key.
type handoff struct {
	once sync.Once
	key  string
	sum  uint64
	at   int
	obj  kube.Object
}

func newDecoded() *decoded {
	return &decoded{
		byRev:  map[sqlstore.Revision]*revision{},
		handed: map[string][]*handoff{},
		seed:   maphash.MakeSeed(),
	}
}

// offer announces that obj is about to be committed as enc under key. settle must follow. From now on obj is shared:
// nobody may change it.
func (d *decoded) offer(key string, enc encoded, obj kube.Object) *handoff {
	h := &handoff{key: key, at: enc.at, obj: obj, sum: d.sum(enc.value[:enc.at], enc.value[enc.at:])}
	d.mu.Lock()
	d.handed[key] = append(d.handed[key], h)
	d.mu.Unlock()
	return h
}

// settle ends an offer: committed at rev, or (0) not at all. The object it returns carries its resourceVersion.
func (d *decoded) settle(h *handoff, rev sqlstore.Revision) kube.Object {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest := d.handed[h.key][:0]
	for _, o := range d.handed[h.key] {
		if o != h {
			rest = append(rest, o)
		}
	}
	if len(rest) == 0 {
		delete(d.handed, h.key)
	} else {
		d.handed[h.key] = rest
	}
	if rev == 0 {
		return nil
	}
	h.commit(rev)
	if e := d.byRev[rev]; e == nil {
		e = &revision{}
		e.fill(func() (kube.Object, error) { return h.obj, nil })
		d.remember(rev, e)
	}
	return h.obj
}

func (h *handoff) commit(rev sqlstore.Revision) {
	h.once.Do(func() { h.obj.SetResourceVersion(formatRevision(rev)) })
}

// object returns the typed form of raw, which is key's value at rev.
func (d *decoded) object(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	d.mu.Lock()
	e := d.byRev[rev]
	if e == nil {
		e = &revision{}
		if h := d.match(key, rev, raw); h != nil {
			h.commit(rev)
			e.fill(func() (kube.Object, error) { return h.obj, nil })
		}
		d.remember(rev, e)
	}
	d.mu.Unlock()
	return e.fill(func() (kube.Object, error) { return decode(k, raw) })
}

// peek returns the typed form of rev when somebody has made it.
func (d *decoded) peek(rev sqlstore.Revision) (kube.Object, bool) {
	d.mu.Lock()
	e := d.byRev[rev]
	d.mu.Unlock()
	if e == nil || !e.done.Load() || e.err != nil {
		return nil, false
	}
	return e.obj, true
}

func (d *decoded) match(key string, rev sqlstore.Revision, raw []byte) *handoff {
	hs := d.handed[key]
	if len(hs) == 0 {
		return nil
	}
	digits := len(formatRevision(rev))
	for _, h := range hs {
		if h.at+digits <= len(raw) && h.sum == d.sum(raw[:h.at], raw[h.at+digits:]) {
			return h
		}
	}
	return nil
}

func (d *decoded) sum(head, tail []byte) uint64 {
	var m maphash.Hash
	m.SetSeed(d.seed)
	m.Write(head)
	m.Write(tail)
	return m.Sum64()
}

// remember puts e under rev and forgets the oldest. d.mu is held.
func (d *decoded) remember(rev sqlstore.Revision, e *revision) {
	if old := d.ring[d.next]; old != 0 {
		delete(d.byRev, old)
	}
	d.ring[d.next] = rev
	d.next = (d.next + 1) % keepDecoded
	d.byRev[rev] = e
}
