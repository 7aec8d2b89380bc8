package registry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// TokenIssuer signs ServiceAccount tokens for serviceaccounts/token. pod is nil for a token that is not bound to one.
type TokenIssuer interface {
	IssueToken(ctx context.Context, sa *corev1.ServiceAccount, pod *corev1.Pod, audiences []string, lifetime time.Duration) (token string, expires time.Time, err error)
}

// Config is what a Registry needs. Store, Kinds and Objects are required.
type Config struct {
	Store     sqlstore.Store
	Kinds     Kinds
	Objects   *objects.Cache   // of Store
	Admission Admission        // nil: everything is admitted
	Tokens    TokenIssuer      // nil: serviceaccounts/token is not served
	Clock     func() time.Time // nil: time.Now
	Told      *Told            // nil: every object is stored
	Log       *slog.Logger     // nil: discarded

	// MaxPods is how many pods there may be; a creation beyond is refused. 0 means no bound.
	MaxPods int
	// BookmarkEvery is the least time between bookmarks of a watch that asked for them; 0 means one minute.
	BookmarkEvery time.Duration
}

// Registry is Verbs for hub/apiserver, and has a control.Client for the hub's own loops. All methods may be called from any
// goroutine, also before Run; typed reads stand still until Run feeds them.
type Registry struct {
	store     sqlstore.Store
	kinds     Kinds
	admission Admission
	tokens    TokenIssuer
	patching  chan struct{} // capacity 1: held while a large patch is applied
	told      *Told
	now       func() time.Time
	log       *slog.Logger
	bookmark  time.Duration
	maxPods   int

	objects *objects.Cache
	watches watches
}

var (
	_ Verbs          = (*Registry)(nil)
	_ control.Client = (*client)(nil)
)

// New returns a registry on cfg.Store. Nothing runs until Run.
func New(cfg Config) *Registry {
	r := &Registry{
		store: cfg.Store, kinds: cfg.Kinds, objects: cfg.Objects, admission: cfg.Admission, tokens: cfg.Tokens, told: cfg.Told,
		now: cfg.Clock, log: cfg.Log, bookmark: cfg.BookmarkEvery,
		maxPods: cfg.MaxPods, patching: make(chan struct{}, 1),
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
	r.watches.open = map[kube.GVK]map[*watcher]struct{}{}
	return r
}

// Run feeds the cache, and does what the kinds ask for as they come and go: objects with a TTL are deleted, watches of kinds that
// are gone end. It returns ctx's error, or the store's when the store closed.
func (r *Registry) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { r.expire(ctx) })
	wg.Go(func() { r.endWatches(ctx) })
	return r.objects.Run(ctx)
}

// admitAll is the admission of a registry that was given none.
type admitAll struct{}

func (admitAll) Mutate(context.Context, Attributes) error   { return nil }
func (admitAll) Validate(context.Context, Attributes) error { return nil }
