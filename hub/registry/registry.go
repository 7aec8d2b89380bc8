package registry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry/expiry"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/internal/fairqueue"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Config is what a Registry needs. Store, Kinds and Objects are required.
type Config struct {
	Store     sqlstore.Store
	Kinds     Kinds
	Objects   *objects.Cache     // of Store
	Types     fieldmanager.Types // describes kinds with a Go type to server-side apply; nil: lists are atomic, and any field is known
	Admission Admission          // nil: everything is admitted
	Clock     func() time.Time   // nil: time.Now
	Log       *slog.Logger       // nil: discarded

	// ReadOnly returns the refusal, an API status, of a write of key, or of all objects of a collection whose keys begin with
	// it; nil when it is written as usual. Commit refuses the same. nil: everything can be written.
	ReadOnly func(key string) error

	// Limits are how many objects of a kind there may be; creations beyond are refused. What is not in it has no limit.
	Limits map[kube.GVK]Limit
	// BookmarkEvery is the least time between bookmarks of a watch that asked for them; 0 means one minute.
	BookmarkEvery time.Duration
}

// Limit bounds how many objects of a kind there may be.
type Limit struct {
	Max    int    // 0: no bound
	Advice string // ends the refusal: what makes room
}

// Registry is Verbs for hub/apiserver, and has a control.Client for the hub's own loops. All methods may be called from any
// goroutine, also before Run; typed reads do not change until Run.
// Its fields are set by New and do not change; never nil.
type Registry struct {
	store     sqlstore.Store
	kinds     Kinds
	admission Admission
	patching  fairqueue.Queue // held while a large patch is applied: one at a time, users take turns
	readOnly  func(key string) error
	now       func() time.Time
	log       *slog.Logger
	bookmark  time.Duration      // the least time between bookmarks of a watch
	limits    map[kube.GVK]Limit // read-only

	objects *objects.Cache // of store
	fields  *fieldmanager.Managers
	watches watches // has its own lock
}

var (
	_ Verbs          = (*Registry)(nil)
	_ control.Client = (*client)(nil)
)

// New returns a registry on cfg.Store. Nothing runs until Run.
func New(cfg Config) *Registry {
	r := &Registry{
		store: cfg.Store, kinds: cfg.Kinds, objects: cfg.Objects, admission: cfg.Admission, readOnly: cfg.ReadOnly,
		now: cfg.Clock, log: cfg.Log, bookmark: cfg.BookmarkEvery,
		limits: cfg.Limits,
	}
	if r.readOnly == nil {
		r.readOnly = func(string) error { return nil }
	}
	if r.admission == nil {
		r.admission = admitAll{}
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.bookmark <= 0 {
		r.bookmark = time.Minute
	}
	r.fields = fieldmanager.New(r.kinds, cfg.Types, r.now, r.log)
	r.watches.open = map[kube.GVK]map[*watcher]struct{}{}
	return r
}

// Run feeds the cache, deletes objects past their kind's TTL, and ends watches of kinds that are no longer served. It follows the
// kinds as they are added and removed. It returns ctx's error, or the store's when the store closed.
func (r *Registry) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() {
		expiry.New(expiry.Config{Kinds: r.kinds, Store: r.store, Objects: r.objects, Now: r.now, Log: r.log}).Run(ctx)
	})
	wg.Go(func() { r.endWatches(ctx) })
	return r.objects.Run(ctx)
}

// admitAll is the admission of a registry whose Config has none.
type admitAll struct{}

func (admitAll) Mutate(context.Context, *AdmissionRequest) error   { return nil }
func (admitAll) Validate(context.Context, *AdmissionRequest) error { return nil }
