package hub

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/backup"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// Defaults of what an operator may choose of the store's bounds.
const (
	// DefaultMaxPods leaves twice the room of the largest fleet that Petrel is made for (1,000 nodes, 10,000 pods).
	DefaultMaxPods = 20_000
	// DefaultMaxNodes is that for nodes: what a join token that leaked can fill the hub with.
	DefaultMaxNodes   = 2_000
	DefaultStoreLimit = 256 << 20 // bytes; see sqlite.Config.MaxBytes
	DefaultBackups    = 3
)

// backupHour is the hour of the local day at which the store is backed up.
const backupHour = 3

// firstBackup is how long after the start the store is backed up when the last backup is older than a day.
const firstBackup = time.Hour

// storePatience is how long a session's handshake waits for the store's revision.
const storePatience = 5 * time.Second

// engine is what the hub needs of a store with its objects. Only this file names the one that is used.
type engine interface {
	sqlstore.Store
	keeper
}

// keeper is an engine without the verbs on objects.
type keeper interface {
	// Compact forgets what was superseded up to and including revision to.
	Compact(ctx context.Context, to sqlstore.Revision) error
	// History names the sequence of revisions that the store belongs to; it does not change while the store is open.
	History() string
	// Health returns why the store takes only what does not make it grow, or nil.
	Health() error
	// Stuck returns an error when one round of commits has gone on for longer than limit.
	Stuck(limit time.Duration) error
	// Run commits until ctx ends.
	Run(ctx context.Context) error
	Close() error
}

// partSuffix ends the name of a backup of the store while it is being written.
const partSuffix = sqlite.PartSuffix

// openStore opens the store with the operator's bounds. Objects with a TTL are the only ones that it may drop.
func (h *Hub) openStore(ctx context.Context) error {
	var expendable []string
	for _, k := range h.kinds.All() {
		if k.TTL != nil && k.StoredAs == nil {
			expendable = append(expendable, resource.Prefix(k, ""))
		}
	}
	db, err := sqlite.Open(ctx, sqlite.Config{
		Path: h.storePath(), BackupDir: h.backupDir(), Log: h.part("store"),
		MaxBytes: h.cfg.StoreLimit, Expendable: expendable, Tenant: resource.TenantOf, Salvage: h.cfg.Salvage,
		OnHealth: func(error) {
			select {
			case h.storeHealth <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	if h.db, err = h.encrypt(ctx, db); err != nil {
		return errors.Join(err, db.Close())
	}
	h.snapshot = func(ctx context.Context, path string) (int64, error) {
		rev, err := db.Backup(ctx, path)
		return int64(rev), err
	}
	h.backUp = func(ctx context.Context) error {
		return db.RunBackups(ctx, sqlite.Backups{Dir: h.backupDir(), Keep: h.cfg.Backups, Hour: backupHour, FirstAfter: firstBackup})
	}
	return nil
}

// BackupSource returns what a backup of the hub with this data directory consists of. The hub may run meanwhile, in another process.
func BackupSource(dataDir string, log *slog.Logger) backup.Source {
	return backup.Source{DataDir: dataDir, Snapshot: func(ctx context.Context, path string) (int64, error) {
		rev, err := sqlite.Copy(ctx, sqlite.Config{Path: filepath.Join(dataDir, "hub.db"), Log: log}, path)
		return int64(rev), err
	}}
}

// PlaceStore makes the snapshot at path the store of the hub with this data directory, which must not run. A store that is there is an
// error, or is set aside when replace is true.
func PlaceStore(ctx context.Context, dataDir, path string, replace bool) (aside string, err error) {
	return sqlite.Place(ctx, filepath.Join(dataDir, "hub.db"), path, replace)
}

func (h *Hub) storePath() string { return filepath.Join(h.cfg.DataDir, "hub.db") }
func (h *Hub) backupDir() string { return filepath.Join(h.cfg.DataDir, "backup") }

// backups keeps the store backed up until ctx ends.
func (h *Hub) backups(ctx context.Context) error {
	if h.cfg.Backups < 0 {
		<-ctx.Done()
		return nil
	}
	return h.backUp(ctx)
}

// reportHealth emits an Event on the namespace kube-system when the store becomes full, and when it has room again. On a full disk
// the Event may be lost, so /readyz and the log report it too.
func (h *Hub) reportHealth(ctx context.Context, events control.Events) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.storeHealth:
		}
		about := &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem},
		}
		if err := h.db.Health(); err != nil {
			events.Event(about, corev1.EventTypeWarning, "StoreFull", "%v", err)
		} else {
			events.Event(about, corev1.EventTypeNormal, "StoreHasRoom", "The store takes everything again")
			h.dispatch.StoreHasRoom()
		}
	}
}
