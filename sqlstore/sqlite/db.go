package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/stall"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/replica"
)

// Config says where a store lives and how much history it keeps.
type Config struct {
	// Path of the SQLite file; its directory must exist. Beside it live Path-wal, Path-shm, Path.lock and Path.history.
	Path string
	// BackupDir is where backups (*.db) of this store are kept. When Path turns out to be damaged the newest good one
	// is named in the error. Optional.
	BackupDir string
	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger
	// KeepHistory is how long superseded values stay readable by watches and by lists at an older revision. 0: 5 minutes.
	KeepHistory time.Duration
	// MaxHistory bounds the same by number of revisions, however young. 0: 20,000.
	MaxHistory int
	// MaxHistoryBytes bounds the same by the bytes of what was superseded. 0: 32 MiB.
	MaxHistoryBytes int64
	// MaxBytes bounds what all objects take in memory; over it Commit takes only what does not make the store grow. 0: 256 MiB.
	MaxBytes int64
	// Expendable are prefixes of keys whose objects may be lost when nothing else helps, and whose creation a full store still
	// takes: Events. The caller must bound them.
	Expendable []string
	// Tenant names whose a key is; "" for nobody's. A tenant may have no more of MaxBytes than what is left for all others;
	// Ops with Reserve may exceed that. nil: there are no tenants.
	Tenant func(key string) string
	// Salvage has a damaged file set aside and a new store made of what can be read of it; a report beside it names the rest.
	// Bad rows of expendable keys in a sound file are always set aside like that.
	Salvage bool
	// OnHealth is called when Health changes, while something is committed: it must not wait, and must not call the store. Optional.
	OnHealth func(error)

	// ring is replica.Config.Ring, for tests.
	ring int
}

func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

var _ sqlstore.Store = (*DB)(nil)

// DB is an open store. All methods are safe for concurrent use.
type DB struct {
	cfg  Config
	lock *fileLock
	read *reads // connections for old history and backups

	id string // History; set before Open returns

	// work is held while something is committed, or upkeep done: by Run, or by a Commit that is alone. It guards what follows up
	// to the blank line, once Open has returned; Close uses it when neither can come any more.
	work     sync.Mutex
	file     *file             // the connection that writes
	marked   sqlstore.Revision // the mark beside the file
	markedAt time.Time
	reserve  *reserve
	healed   time.Time // when heal was last tried
	owed     bool      // a Commit that was alone has left upkeep to Run
	broken   any       // what such a Commit has panicked with, for Run to do the same

	round stall.Work // of committing; named by Open

	quiet atomic.Bool // Run runs, and requests have come one at a time lately

	living atomic.Int64
	health atomic.Pointer[sqlstore.FullError]

	queue queue
	mem   *replica.Log // what readers see; set before Open returns

	closing   context.Context // done as soon as Close is called
	close     context.CancelFunc
	running   sync.Mutex // held by Run
	closeOnce sync.Once
	closeErr  error
}

// Open opens the store at cfg.Path, or makes it, and loads it. It fails with *DamagedError when the file is not sound
// (and has set it aside), *VersionError when a newer Petrel wrote it, *InUseError when another process has it open.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	cfg.setDefaults()
	if fi, err := os.Stat(filepath.Dir(cfg.Path)); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("open store: %s is not a directory", filepath.Dir(cfg.Path))
	}
	lock, err := lockFile(cfg.Path + ".lock")
	if err != nil {
		return nil, err
	}
	db, err := open(ctx, cfg)
	if err != nil {
		lock.unlock()
		return nil, err
	}
	db.lock = lock
	return db, nil
}

func open(ctx context.Context, cfg Config) (*DB, error) {
	begin := time.Now()
	if err := refuseAside(ctx, cfg); err != nil {
		return nil, err
	}
	if err := dropStaleWAL(cfg); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := createPrivate(cfg.Path); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	spare := newReserve(cfg.Path, cfg.Log)
	if spare.free() < spare.margin() {
		spare.giveUp() // opening needs room too; Run takes it again
	}
	f, loaded, err := openFile(ctx, cfg)
	if newer := (*VersionError)(nil); errors.As(err, &newer) {
		newer.Path = cfg.Path
		return nil, newer
	}
	if isDamage(err) {
		damaged := setAside(ctx, cfg, err)
		if e := (*DamagedError)(nil); !cfg.Salvage || !errors.As(damaged, &e) {
			return nil, damaged
		} else if err := salvage(ctx, cfg, e.Aside); err != nil {
			return nil, errors.Join(damaged, err)
		}
		f, loaded, err = openFile(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Path, err)
	}
	if loaded.rev == 0 { // perhaps just made: its name must survive a power cut as its first commit does
		if err := durable.SyncDir(filepath.Dir(cfg.Path)); err != nil {
			f.close()
			return nil, fmt.Errorf("open store %s: %w", cfg.Path, err)
		}
	}
	db := &DB{round: stall.Work{Name: "store"}, cfg: cfg, file: f, read: newReads(cfg.Path), reserve: spare, marked: loaded.rev, markedAt: begin}
	db.id = identify(cfg, f, loaded.rev)
	db.closing, db.close = context.WithCancel(context.Background())
	db.queue.init()
	db.mem = replica.New(replica.Config{
		Index: loaded.index, Rev: loaded.rev, Compacted: loaded.compacted, Living: loaded.living, Dead: loaded.dead,
		Source: db.read, Ring: cfg.ring, Path: cfg.Path,
		Keep:     replica.Keep{For: cfg.KeepHistory, Revisions: cfg.MaxHistory, Bytes: cfg.MaxHistoryBytes},
		MaxBytes: cfg.MaxBytes, Expendable: cfg.Expendable, Tenant: cfg.Tenant,
	})
	db.living.Store(loaded.living)
	cfg.Log.Debug("store opened", "path", cfg.Path, "objects", loaded.index.Len(), "revision", int64(loaded.rev),
		"compacted", int64(loaded.compacted), "took", time.Since(begin))
	return db, nil
}

// createPrivate makes path, if it does not exist, an empty file for its owner only: Secrets will be in it. SQLite takes an
// empty file for a new database, and gives its WAL the same mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// rev returns the last committed revision.
func (db *DB) rev() sqlstore.Revision { return db.mem.Rev() }

// Len returns the number of keys.
func (db *DB) Len() int { return db.mem.Len() }

// Revision implements sqlstore.Store.
func (db *DB) Revision(ctx context.Context) (sqlstore.Revision, error) { return db.mem.Revision(ctx) }

// Get implements sqlstore.Store.
func (db *DB) Get(ctx context.Context, key string) (sqlstore.Entry, bool, error) {
	return db.mem.Get(ctx, key)
}

// List implements sqlstore.Store. Only history that has left memory is read from the file.
func (db *DB) List(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	return db.mem.List(ctx, prefix, after, limit, at)
}

// Watch implements sqlstore.Store.
func (db *DB) Watch(ctx context.Context, prefix string, from sqlstore.Revision) (sqlstore.Watcher, error) {
	return db.mem.Watch(ctx, prefix, from)
}

// Run commits and compacts until ctx ends or Close is called; it returns nil then. Whatever it has not committed by then
// fails with ErrClosed; reading goes on until Close. Only one Run can be active.
func (db *DB) Run(ctx context.Context) error {
	if db.closing.Err() != nil {
		return sqlstore.ErrClosed
	}
	if !db.running.TryLock() {
		return fmt.Errorf("run store %s: it is running already", db.cfg.Path)
	}
	defer db.running.Unlock()
	defer db.queue.shut()
	return db.commitLoop(ctx)
}

// Close ends Run, watchers and whatever waits, and closes the file. The returned error is that of closing the file.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.close()
		db.queue.shut()
		db.running.Lock() // Run has returned, and cannot begin again
		db.mem.Close()
		if rev := db.rev(); rev != db.marked {
			db.record(time.Now(), rev)
		}
		db.closeErr = db.read.close()
		if err := db.file.close(); err != nil {
			db.closeErr = err
		}
		db.lock.unlock()
	})
	return db.closeErr
}
