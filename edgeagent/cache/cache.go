package cache

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/internal/wire"
)

// Record types of desired.log.
const (
	recPut      = 'p' // wire.Batch with one put
	recDelete   = 'd' // wire.Batch with one delete
	recRounds   = 'r' // wire.Batch with rounds: differences, so that a card is not worn by whole Services each time that a pod is ready
	recCommit   = 'c' // revision (8 bytes)
	recSettings = 's' // JSON of wire.Settings
)

// Cache is the node's memory. All methods are safe for concurrent use.
type Cache struct {
	log *slog.Logger

	mu       sync.Mutex
	file     *logFile
	objects  map[wire.ID]wire.Object
	hash     wire.Hash
	bytes    int64
	revision uint64
	settings wire.Settings
	snapshot []wire.Object // what Desired returns; nil when it must be made again
	watchers map[chan struct{}]struct{}

	reports reports
}

// Open reads the cache in dir, making it when it is not there. With keys it is encrypted on the disk, with the first of them;
// what is there in clear, or under another one, is written again. nil: it is in clear.
func Open(dir string, keys *seal.Keys, log *slog.Logger) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: make %s: %w", dir, err)
	}
	file, records, stale, damaged, err := openLog(filepath.Join(dir, "desired.log"), keys)
	if err != nil {
		return nil, err
	}
	c := &Cache{log: log, file: file, objects: map[wire.ID]wire.Object{}, watchers: map[chan struct{}]struct{}{}}
	bad, whole := c.replay(records)
	damaged += bad
	// What no commit follows was never accepted. It must not wait there for the commit of a later batch.
	file.cut(whole)
	if damaged > 0 {
		log.Warn("cache has damaged records; the hub will send what is missing", "file", file.path, "places", damaged)
	}
	if stale {
		if err := file.rewrite(c.all()); err != nil {
			file.close()
			return nil, fmt.Errorf("encrypt: %w", err)
		}
	}
	if err := c.reports.open(filepath.Join(dir, "reports.log"), keys, log); err != nil {
		file.close()
		return nil, err
	}
	return c, nil
}

// replay brings the set to what the records say. Only what a commit follows counts. It returns how many were unreadable,
// and where the last commit ends.
func (c *Cache) replay(records []record) (bad int, whole int64) {
	var group []*wire.Batch
	for _, r := range records {
		switch r.typ {
		case recPut, recDelete, recRounds:
			m, err := wire.Decode(r.payload)
			b, ok := m.(*wire.Batch)
			if err != nil || !ok {
				bad++
				continue
			}
			group = append(group, b)
		case recCommit:
			for _, b := range group {
				c.take(b)
			}
			group, whole = nil, r.end
			if len(r.payload) == 8 {
				c.revision = binary.BigEndian.Uint64(r.payload)
			}
		case recSettings:
			if len(group) == 0 {
				whole = r.end
			}
			if err := json.Unmarshal(r.payload, &c.settings); err != nil {
				bad++
			}
		default: // of a later version
			whole = r.end
		}
	}
	return bad, whole
}

// object returns an object of the set.
func (c *Cache) object(id wire.ID) (wire.Object, bool) {
	o, ok := c.objects[id]
	return o, ok
}

// take applies a batch to memory.
func (c *Cache) take(b *wire.Batch) {
	b = b.Expand(c.object)
	drop := func(id wire.ID) {
		if o, ok := c.objects[id]; ok {
			c.hash.Remove(id, o.Version)
			c.bytes -= int64(len(o.Data)) + 128
			delete(c.objects, id)
		}
	}
	for _, id := range b.Deletes {
		drop(id)
	}
	for _, p := range b.Puts {
		drop(p.ID)
		if !p.Once {
			p.Data = bytes.Clone(p.Data) // or it would keep the whole message, or log, that it came with
			c.objects[p.ID] = p.Object
			c.hash.Add(p.ID, p.Version)
			c.bytes += int64(len(p.Data)) + 128
		}
	}
	c.snapshot = c.replaced(b)
}

// replaced returns the snapshot with a batch that only replaces objects, as most do that come to a running node; nil when it does more,
// and the snapshot must be made again.
func (c *Cache) replaced(b *wire.Batch) []wire.Object {
	if c.snapshot == nil || len(b.Deletes) > 0 {
		return nil
	}
	snapshot := slices.Clone(c.snapshot) // others read it
	for i := range b.Puts {
		p := &b.Puts[i]
		at, ok := slices.BinarySearchFunc(snapshot, p.ID, func(o wire.Object, id wire.ID) int { return compareIDs(o.ID, id) })
		if !ok || p.Once {
			return nil
		}
		snapshot[at] = c.objects[p.ID]
	}
	return snapshot
}

func compareIDs(a, b wire.ID) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.UID, b.UID))
}

// Apply makes a batch of the hub durable and part of the set, as a whole or not at all, and returns the set's hash.
func (c *Cache) Apply(b *wire.Batch) (wire.Hash, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	records := make([]record, 0, len(b.Puts)+len(b.Deletes)+2)
	if len(b.Rounds) > 0 {
		records = append(records, record{typ: recRounds, payload: wire.Encode(&wire.Batch{Rounds: b.Rounds})})
	}
	for _, id := range b.Deletes {
		records = append(records, deleteRecord(id))
	}
	for i := range b.Puts {
		records = append(records, putRecord(b.Puts[i].Object))
	}
	records = append(records, commitRecord(b.Revision))
	if err := c.file.append(records); err != nil {
		return wire.Hash{}, err
	}
	c.take(b)
	c.revision = b.Revision
	c.compact()
	c.signal()
	return c.hash, nil
}

// compact rewrites the log when most of it is old. A failure leaves the old log in use.
func (c *Cache) compact() {
	if !c.file.wasteful(c.bytes) {
		return
	}
	if err := c.file.rewrite(c.all()); err != nil {
		c.log.Warn("cache not compacted", "error", err)
	}
}

// all is the whole cache as records.
func (c *Cache) all() []record {
	records := make([]record, 0, len(c.objects)+2)
	if b, err := json.Marshal(c.settings); err == nil {
		records = append(records, record{typ: recSettings, payload: b})
	}
	for _, o := range c.sorted() {
		records = append(records, putRecord(o))
	}
	return append(records, commitRecord(c.revision))
}

func putRecord(o wire.Object) record {
	return record{typ: recPut, payload: wire.Encode(&wire.Batch{Puts: []wire.Put{{Object: o}}})}
}

func deleteRecord(id wire.ID) record {
	return record{typ: recDelete, payload: wire.Encode(&wire.Batch{Deletes: []wire.ID{id}})}
}

func commitRecord(revision uint64) record {
	return record{typ: recCommit, payload: binary.BigEndian.AppendUint64(nil, revision)}
}

// Clear empties the desired set: the hub has said that this node is removed.
func (c *Cache) Clear() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.objects) == 0 {
		return nil
	}
	settings, err := json.Marshal(c.settings)
	if err != nil {
		return fmt.Errorf("cache: settings: %w", err)
	}
	// The settings stay: they are the cluster's, and are written only when they change.
	if err := c.file.rewrite([]record{{typ: recSettings, payload: settings}, commitRecord(0)}); err != nil {
		return err
	}
	c.objects, c.hash, c.bytes, c.revision, c.snapshot = map[wire.ID]wire.Object{}, wire.Hash{}, 0, 0, nil
	c.signal()
	return nil
}

// Desired is the desired set, sorted by kind and UID. The slice and all it holds are shared: read-only.
func (c *Cache) Desired() []wire.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sorted()
}

func (c *Cache) sorted() []wire.Object {
	if c.snapshot == nil {
		c.snapshot = make([]wire.Object, 0, len(c.objects))
		for _, o := range c.objects {
			c.snapshot = append(c.snapshot, o)
		}
		slices.SortFunc(c.snapshot, func(a, b wire.Object) int { return compareIDs(a.ID, b.ID) })
	}
	return c.snapshot
}

// Hash is the desired set's hash.
func (c *Cache) Hash() wire.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hash
}

// Entries is the desired set's id→version map.
func (c *Cache) Entries() []wire.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]wire.Entry, 0, len(c.objects))
	for id, o := range c.objects {
		out = append(out, wire.Entry{ID: id, Version: o.Version})
	}
	return out
}

// Revision is the hub's revision that the set is as of.
func (c *Cache) Revision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// Rebase takes the revision of a hub whose store has another history: the earlier one says nothing about it.
func (c *Cache) Rebase(revision uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision == revision {
		return nil
	}
	if err := c.file.append([]record{commitRecord(revision)}); err != nil {
		return err
	}
	c.revision = revision
	return nil
}

// Settings returns the cluster's settings, as the hub last sent them; zero before the first contact.
func (c *Cache) Settings() wire.Settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settings
}

// SetSettings remembers the cluster's settings. It writes only when they change.
func (c *Cache) SetSettings(s wire.Settings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == c.settings {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cache: settings: %w", err)
	}
	if err := c.file.append([]record{{typ: recSettings, payload: b}}); err != nil {
		return err
	}
	c.settings = s
	c.signal()
	return nil
}

// Subscribe gives a channel that receives when the desired set or the settings have changed since it was last read, and
// a function that ends the subscription.
func (c *Cache) Subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	c.watchers[ch] = struct{}{}
	c.mu.Unlock()
	return ch, func() {
		c.mu.Lock()
		delete(c.watchers, ch)
		c.mu.Unlock()
	}
}

func (c *Cache) signal() {
	for ch := range c.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Close writes what is not written yet. The cache must not be used afterwards.
func (c *Cache) Close() error {
	err := c.reports.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(err, c.file.close())
}

// flushAfter is how long a report waits for the hub's confirmation before it is written to disk.
const flushAfter = 2 * time.Second
