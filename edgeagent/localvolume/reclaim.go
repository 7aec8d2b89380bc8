package localvolume

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// A directory that could not be removed, or that a pod still has, is tried again after firstRetry, later each time.
const (
	firstRetry   = time.Second
	longestRetry = 5 * time.Minute
)

// Config of a Reclaimer. All fields are required.
type Config struct {
	Store *Store
	// Used reports whether a pod of this node still has the directory mounted.
	Used func(dir string) bool
	// Report sends a report to the hub, Forget takes it back.
	Report func(wire.Object) error
	Forget func(wire.ID) error
	Log    *slog.Logger
}

// Reclaimer removes the volumes that the hub wants removed, and reports each that is gone for as long as the hub wants it removed:
// a report that was lost on the way is made again by the next start of the agent.
type Reclaimer struct {
	cfg Config // does not change after NewReclaimer

	mu     sync.Mutex
	wanted map[string]*reclaim // by UID of the volume's object; guarded by mu
	signal chan struct{}       // one token while something may be to do
}

// reclaim is one instruction. It is guarded by Reclaimer.mu, but for wire, which does not change.
type reclaim struct {
	wire   wire.Reclaim
	gone   bool   // and reported
	failed string // the error that was reported last
}

// NewReclaimer returns a Reclaimer; Run makes it work.
func NewReclaimer(cfg Config) *Reclaimer {
	return &Reclaimer{cfg: cfg, wanted: map[string]*reclaim{}, signal: make(chan struct{}, 1)}
}

// Apply sets which volumes are to be removed, by the UIDs of their objects.
func (r *Reclaimer) Apply(want map[string]wire.Reclaim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid := range r.wanted {
		if _, still := want[uid]; !still {
			delete(r.wanted, uid)
			_ = r.cfg.Forget(reportID(uid)) // the cache refuses only when it is closed
		}
	}
	news := false
	for uid, w := range want {
		if r.wanted[uid] == nil {
			r.wanted[uid] = &reclaim{wire: w}
			news = true
		}
	}
	if news {
		select {
		case r.signal <- struct{}{}:
		default:
		}
	}
}

// Run removes until ctx ends. While everything is removed it sleeps without a timer.
func (r *Reclaimer) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	wait := firstRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.signal:
			wait = firstRetry
		case <-timer.C:
		}
		if !r.round(ctx) {
			timer.Reset(wait)
			wait = min(2*wait, longestRetry)
		}
	}
}

// round tries each that is not removed yet; it reports whether all are.
func (r *Reclaimer) round(ctx context.Context) (all bool) {
	r.mu.Lock()
	pending := map[string]wire.Reclaim{}
	for uid, w := range r.wanted {
		if !w.gone {
			pending[uid] = w.wire
		}
	}
	r.mu.Unlock()
	all = true
	for uid, w := range pending {
		if ctx.Err() != nil {
			return true
		}
		if r.cfg.Used(r.cfg.Store.Path(w.Handle)) {
			all = false
			continue
		}
		err := contain.Do(r.cfg.Log, "agent/reclaim", w.Volume, func() error { return r.cfg.Store.Remove(w.Handle) })
		all = r.removed(uid, w, err) && all
	}
	return all
}

// removed reports the outcome to the hub, an error only when it is another than the last one; it returns whether nothing is left to do.
func (r *Reclaimer) removed(uid string, w wire.Reclaim, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.wanted[uid]
	if have == nil {
		return true // not wanted any more
	}
	report := wire.VolumeReport{Volume: w.Volume, Gone: err == nil}
	if err != nil {
		if report.Error = err.Error(); report.Error == have.failed {
			return false
		}
		r.cfg.Log.Warn("volume could not be removed, will try again", "volume", w.Volume, "error", err)
	} else {
		r.cfg.Log.Info("volume removed", "volume", w.Volume)
	}
	data, e := json.Marshal(report)
	if e == nil {
		e = r.cfg.Report(wire.Object{ID: reportID(uid), Name: w.Volume, Data: data})
	}
	if e != nil {
		r.cfg.Log.Warn("removal of a volume could not be reported, will try again", "volume", w.Volume, "error", e)
		return false
	}
	have.gone, have.failed = err == nil, report.Error
	return err == nil
}

func reportID(uid string) wire.ID { return wire.ID{Kind: wire.KindVolume, UID: uid} }
