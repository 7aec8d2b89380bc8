package objects

import (
	"hash/maphash"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// These bound the recent revisions that stay decoded, in number and in bytes of JSON (the typed form has a few times as many). The
// cache keeps the current objects of kinds that loops read anyway; these are for watches that follow closely, and for updates in
// quick succession.
const (
	keepDecoded      = 512
	keepDecodedBytes = 2 << 20
)

// A custom object is heavier than its JSON shows, and the cache does not keep it, so that what is kept here comes on top: few and small
// ones are, for the watches and the next write of it.
const (
	slimWeight = 8                     // by which the bytes of such an object count
	maxSlim    = keepDecodedBytes / 16 // of one, as they count: 16 KiB of JSON
)

// weight returns how many bytes an object of n bytes of JSON counts here, and whether it is kept at all.
func weight(k *resource.Kind, n int) (bytes int, kept bool) {
	if k.Slim == nil {
		return n, true
	}
	return n * slimWeight, n*slimWeight <= maxSlim
}

// decoded holds the typed form of recent revisions, so that each is decoded once for all readers.
type decoded struct {
	mu     sync.Mutex
	known  map[version]*revision // those in recent; guarded by mu, as are the next three
	recent []remembered          // oldest first; those of known
	bytes  int                   // of recent
	handed map[string][]*Handoff // by key: objects that writers are committing
	large  passing               // guarded by mu
	seed   maphash.Seed          // set once: hashes of this process only
	log    *slog.Logger
}

// passing is the last revision that was too large to be kept. Readers of one commit come together, and share it; it goes with the next
// collection of garbage.
type passing struct {
	of version
	e  weak.Pointer[revision]
}

// version names an object as of a revision. The key is part of it because a synthesized object has its source's revision.
type version struct {
	key string
	rev sqlstore.Revision
}

// remembered is a version in the order in which they were decoded.
type remembered struct {
	of    version
	bytes int
}

// revision is one object as of one revision; its first reader makes obj.
type revision struct {
	once sync.Once
	done atomic.Bool // obj and err may be read
	obj  kube.Object
	err  error
}

// fill makes the object, which is key's. A panic of a decoder is the object's error, for all its readers.
func (e *revision) fill(log *slog.Logger, key string, make func() (kube.Object, error)) (kube.Object, error) {
	e.once.Do(func() {
		e.err = contain.Do(log, "objects/decode", key, func() (err error) {
			e.obj, err = make()
			return err
		})
		e.done.Store(true)
	})
	return e.obj, e.err
}

// Handoff is an object that its writer has encoded but whose revision it does not know yet. The feed may see the commit
// before the writer does, so both may settle it; the content's hash distinguishes it from what another writer wrote to the same key.
type Handoff struct {
	once sync.Once // guards the first settling, which sets obj's resourceVersion
	key  string
	sum  uint64      // of the JSON without its revision
	at   int         // offset of the revision in the JSON
	size int         // as it counts, in bytes
	obj  kube.Object // shared: read-only but for the settling
}

func newDecoded(log *slog.Logger) *decoded {
	return &decoded{
		log:    log,
		known:  map[version]*revision{},
		handed: map[string][]*Handoff{},
		seed:   maphash.MakeSeed(),
	}
}

// offer announces that obj is about to be committed as enc under key. From now on obj is shared: read-only.
// settle must follow, unless the result is nil because such an object is not kept, or is not what a reader of enc would have.
func (d *decoded) offer(k *resource.Kind, key string, enc Encoded, obj kube.Object) *Handoff {
	size, kept := weight(k, len(enc.Value))
	if u, ok := obj.(*unstructured.Unstructured); !kept || ok && !exact(u.Object) {
		return nil
	}
	h := &Handoff{key: key, at: enc.At, size: size, obj: obj, sum: d.sum(enc.Value[:enc.At], enc.Value[enc.At:])}
	d.mu.Lock()
	d.handed[key] = append(d.handed[key], h)
	d.mu.Unlock()
	return h
}

// exact reports whether v is what its JSON decodes to: of a float64 without a fraction that makes an int64, which is equal in no comparison
// of objects.
func exact(v any) bool {
	switch v := v.(type) {
	case float64:
		return v != math.Trunc(v)
	case map[string]any:
		for _, field := range v {
			if !exact(field) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { return !exact(item) })
	}
	return true
}

// settle ends an offer: committed at rev, or (0) not at all. The object that it returns carries its resourceVersion.
func (d *decoded) settle(h *Handoff, rev sqlstore.Revision) kube.Object {
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
	if at := (version{h.key, rev}); d.known[at] == nil {
		e := &revision{}
		e.fill(d.log, h.key, func() (kube.Object, error) { return h.obj, nil })
		d.remember(at, e, h.size)
	}
	return h.obj
}

func (h *Handoff) commit(rev sqlstore.Revision) {
	h.once.Do(func() { h.obj.SetResourceVersion(FormatRevision(rev)) })
}

// object returns the typed form of raw, which is key's value at rev. What is not kept is shared by those who ask at the same time.
func (d *decoded) object(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	at := version{key, rev}
	size, keep := weight(k, len(raw))
	d.mu.Lock()
	e := d.known[at]
	if e == nil && d.large.of == at {
		e = d.large.e.Value()
	}
	switch {
	case e != nil:
	case !keep:
		e = &revision{}
		d.large = passing{at, weak.Make(e)}
	default:
		e = &revision{}
		if h := d.match(key, rev, raw); h != nil {
			h.commit(rev)
			e.fill(d.log, key, func() (kube.Object, error) { return h.obj, nil })
		}
		d.remember(at, e, size)
	}
	d.mu.Unlock()
	return e.fill(d.log, key, func() (kube.Object, error) { return Decode(k, raw) })
}

// forget drops all that is decoded.
func (d *decoded) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.known)
	d.recent, d.bytes, d.large = nil, 0, passing{}
}

// peek returns the typed form of key's value at rev if it has been decoded.
func (d *decoded) peek(key string, rev sqlstore.Revision) (kube.Object, bool) {
	d.mu.Lock()
	e := d.known[version{key, rev}]
	d.mu.Unlock()
	if e == nil || !e.done.Load() || e.err != nil {
		return nil, false
	}
	return e.obj, true
}

func (d *decoded) match(key string, rev sqlstore.Revision, raw []byte) *Handoff {
	hs := d.handed[key]
	if len(hs) == 0 {
		return nil
	}
	digits := len(FormatRevision(rev))
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

// remember puts e, which counts so many bytes, at its version and forgets the oldest. The newest stays, however large. d.mu
// is held.
func (d *decoded) remember(at version, e *revision, bytes int) {
	d.known[at] = e
	d.recent = append(d.recent, remembered{at, bytes})
	d.bytes += bytes
	drop := 0
	for drop < len(d.recent)-1 && (len(d.recent)-drop > keepDecoded || d.bytes > keepDecodedBytes) {
		delete(d.known, d.recent[drop].of)
		d.bytes -= d.recent[drop].bytes
		drop++
	}
	d.recent = d.recent[drop:] // append moves what is left now and then
}
