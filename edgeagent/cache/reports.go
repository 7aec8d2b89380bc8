package cache

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/internal/wire"
)

// Bounds of what waits for the hub. When they are reached, the oldest events go first; a pod's or the node's latest
// report is never dropped.
const (
	maxEvents = 256
	maxEventB = 1 << 20
)

// reports are what the node has to say. Latest per id wins.
type reports struct {
	log *slog.Logger

	mu      sync.Mutex
	file    *logFile
	byID    map[wire.ID]*report
	order   uint64
	events  int
	eventB  int
	changed map[wire.ID]struct{} // since the last ReportChanges; of those no longer there, only what the link has seen
	notify  chan struct{}
	onDisk  map[wire.ID]uint64 // versions in the file
	dirty   bool               // the file may differ from what it should hold
	timer   *time.Timer
	pause   time.Duration // before the next try, while writing fails
	closed  bool
}

// report is one of them. Invariant: a confirmed one is standing (a once report is forgotten on confirmation).
type report struct {
	obj       wire.Object
	once      bool
	confirmed bool
	told      bool   // the link has been given one of this id
	order     uint64 // of arrival
}

// ReportChange is a report set or (Object nil) taken back.
type ReportChange struct {
	ID     wire.ID
	Object *wire.Object
	Once   bool
}

func (r *reports) open(path string, keys *seal.Keys, log *slog.Logger) error {
	file, records, _, damaged, err := openLog(path, keys) // what is in clear goes with the next rewrite: reports hold no Secrets
	if err != nil {
		return err
	}
	r.log, r.file = log, file
	r.byID, r.changed, r.onDisk = map[wire.ID]*report{}, map[wire.ID]struct{}{}, map[wire.ID]uint64{}
	r.notify = make(chan struct{}, 1)
	if damaged > 0 {
		log.Warn("unsent reports have damaged records; they are lost", "file", path, "places", damaged)
	}
	for _, rec := range records {
		m, err := wire.Decode(rec.payload)
		b, ok := m.(*wire.Batch)
		if err != nil || !ok {
			continue
		}
		for _, p := range b.Puts {
			r.set(p.Object, once(&p.Object))
			r.onDisk[p.ID] = p.Version
		}
		for _, id := range b.Deletes {
			r.remove(id)
			delete(r.onDisk, id)
		}
	}
	return nil
}

// once reports whether a report is handed over and then forgotten: events, and the end of a pod.
func once(o *wire.Object) bool {
	switch o.Kind {
	case wire.KindEvent:
		return true
	case wire.KindPodStatus:
		var p struct {
			Gone bool `json:"gone"`
		}
		return json.Unmarshal(o.Data, &p) == nil && p.Gone
	}
	return false
}

// fleeting reports whether a report is made again at each start of the agent: it is not worth a write.
func fleeting(k wire.Kind) bool { return k == wire.KindImage || k == wire.KindVolume }

// Report sends something to the hub: at once when there is a session, otherwise when there is one again. The latest
// report of an id replaces earlier ones. Its Version is set here. It is durable soon after, unless confirmed before or fleeting.
func (c *Cache) Report(o wire.Object) error {
	o.Version = wire.ContentVersion(&o)
	r := &c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("cache: report %s %s: closed", o.Kind, o.UID)
	}
	one := once(&o)
	if old := r.byID[o.ID]; old != nil && old.once == one && old.obj.Version == o.Version {
		return nil
	}
	r.set(o, one)
	r.mark(o.ID)
	return nil
}

// Forget takes a report back: there is nothing more to say about the id, and the hub need not remember it.
func (c *Cache) Forget(id wire.ID) error {
	r := &c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	// The end of a pod still has to reach the hub; it goes by itself when it has.
	if old := r.byID[id]; old == nil || old.once {
		return nil
	}
	if r.remove(id) {
		r.changed[id] = struct{}{}
	}
	r.wake()
	return nil
}

func (r *reports) set(o wire.Object, once bool) {
	told := r.remove(o.ID)
	r.order++
	r.byID[o.ID] = &report{obj: o, once: once, told: told, order: r.order}
	if o.Kind == wire.KindEvent {
		r.events++
		r.eventB += len(o.Data)
		r.bound()
	}
}

// remove forgets a report, and returns whether the link has seen it. What came and went between two looks of the link
// leaves no trace: while the hub is away for weeks, that is every event but the last ones.
func (r *reports) remove(id wire.ID) (told bool) {
	old := r.byID[id]
	if old == nil {
		return false
	}
	if id.Kind == wire.KindEvent {
		r.events--
		r.eventB -= len(old.obj.Data)
	}
	delete(r.byID, id)
	if !old.told {
		delete(r.changed, id)
	}
	return old.told
}

// bound drops the oldest events, a few at a time.
func (r *reports) bound() {
	if r.events <= maxEvents && r.eventB <= maxEventB {
		return
	}
	var events []*report
	for _, x := range r.byID {
		if x.obj.Kind == wire.KindEvent {
			events = append(events, x)
		}
	}
	slices.SortFunc(events, func(a, b *report) int { return cmp.Compare(a.order, b.order) })
	for _, x := range events {
		if r.events <= maxEvents*7/8 && r.eventB <= maxEventB*7/8 || r.events == 1 {
			return
		}
		if r.remove(x.obj.ID) {
			r.changed[x.obj.ID] = struct{}{}
		}
	}
}

func (r *reports) mark(id wire.ID) {
	r.changed[id] = struct{}{}
	r.wake()
}

// wake notifies the link, and has the file written in a while.
func (r *reports) wake() {
	select {
	case r.notify <- struct{}{}:
	default:
	}
	r.later()
}

// later has the file written in a while.
func (r *reports) later() {
	if !r.dirty && !r.closed {
		r.dirty = true
		r.timer = time.AfterFunc(max(r.pause, flushAfter), r.flushTimed)
	}
}

func (r *reports) flushTimed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.flush(); err != nil {
		r.pause = min(max(2*r.pause, flushAfter), time.Minute) // more attempts would not help a full disk
		r.log.Warn("unsent reports not written", "error", err, "retry", r.pause)
		r.later()
		return
	}
	r.pause = 0
}

// flush brings the file to what is unconfirmed.
func (r *reports) flush() error {
	if !r.dirty || r.closed {
		return nil
	}
	r.dirty = false
	var records []record
	var live int64
	keep := make(map[wire.ID]uint64)
	for _, x := range r.oldestFirst() {
		if x.confirmed || fleeting(x.obj.Kind) {
			continue
		}
		keep[x.obj.ID] = x.obj.Version
		live += int64(len(x.obj.Data)) + 128
		if v, ok := r.onDisk[x.obj.ID]; !ok || v != x.obj.Version {
			records = append(records, putRecord(x.obj))
		}
	}
	for id := range r.onDisk {
		if _, ok := keep[id]; !ok {
			records = append(records, deleteRecord(id))
		}
	}
	if len(records) == 0 {
		return nil
	}
	var err error
	if r.file.wasteful(live) || len(keep) == 0 {
		records = records[:0]
		for _, x := range r.oldestFirst() {
			if !x.confirmed && !fleeting(x.obj.Kind) {
				records = append(records, putRecord(x.obj))
			}
		}
		err = r.file.rewrite(records)
	} else {
		err = r.file.append(records)
	}
	if err != nil {
		return err
	}
	r.onDisk = keep
	return nil
}

func (r *reports) oldestFirst() []*report {
	all := make([]*report, 0, len(r.byID))
	for _, x := range r.byID {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *report) int { return cmp.Compare(a.order, b.order) })
	return all
}

func (r *reports) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	err := r.flush()
	r.closed = true
	return cmp.Or(err, r.file.close())
}

// Reports gives all reports, for a link that starts. Changes from then on come from ReportChanges.
func (c *Cache) Reports() []ReportChange {
	r := &c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.changed)
	out := make([]ReportChange, 0, len(r.byID))
	for _, x := range r.oldestFirst() {
		o := x.obj
		x.told = true
		out = append(out, ReportChange{x.obj.ID, &o, x.once})
	}
	return out
}

// ReportChanges gives what changed since Reports or the last call. ReportsChanged receives when there is something.
func (c *Cache) ReportChanges() []ReportChange {
	r := &c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]ReportChange, 0, len(r.changed))
	for id := range r.changed {
		ch := ReportChange{ID: id}
		if x := r.byID[id]; x != nil {
			o := x.obj
			x.told = true
			ch.Object, ch.Once = &o, x.once
		}
		out = append(out, ch)
	}
	clear(r.changed)
	return out
}

// ReportsChanged is the signal for ReportChanges. It has one reader, the link.
func (c *Cache) ReportsChanged() <-chan struct{} { return c.reports.notify }

// Confirmed says that the hub has made a batch of reports durable.
func (c *Cache) Confirmed(b *wire.Batch) {
	r := &c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range b.Puts {
		x := r.byID[p.ID]
		if x == nil || x.obj.Version != p.Version || x.once != p.Once {
			continue
		}
		if x.once {
			r.remove(p.ID)
		} else {
			x.confirmed = true
		}
		if _, ok := r.onDisk[p.ID]; ok {
			r.later()
		}
	}
}
