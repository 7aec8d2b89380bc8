package sqlstore

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
	// Salvage has a damaged file set aside and a new store made of what can be read of it; a report beside it names the rest.
	// Bad rows of expendable keys in a sound file are always set aside like that.
	Salvage bool
	// OnHealth is called when Health changes, by the committer: it must not wait, and must not call the store. Optional.
	OnHealth func(error)
}

func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.KeepHistory <= 0 {
		c.KeepHistory = 5 * time.Minute
	}
	if c.MaxHistory <= 0 {
		c.MaxHistory = 20_000
	}
	if c.MaxHistoryBytes <= 0 {
		c.MaxHistoryBytes = defaultHistoryBytes
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = defaultMaxBytes
	}
}

var _ Store = (*DB)(nil)

// DB is an open store. All methods are safe for concurrent use.
type DB struct {
	cfg  Config
	lock *fileLock
	file *file  // the committer's connection; used by Run only, once Open has returned
	read *reads // connections for old history and backups

	id string // History; set before Open returns

	// The mark beside the file; used by Run only, and by Close after it.
	marked   Revision
	markedAt time.Time

	// The committer's own: Open makes them, then only Run uses them.
	room    room
	reserve *reserve
	healed  time.Time // when heal was last tried

	living atomic.Int64
	health atomic.Pointer[FullError]

	queue   queue
	state   atomic.Pointer[state]
	history *history

	closing   context.Context // done as soon as Close is called
	close     context.CancelFunc
	running   sync.Mutex // held by Run
	closeOnce sync.Once
	closeErr  error
}

// state is everything that is current as of rev. It is immutable.
type state struct {
	index *index
	rev   Revision
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
	db := &DB{cfg: cfg, file: f, read: newReads(cfg.Path), reserve: spare, marked: loaded.rev, markedAt: begin}
	db.id = identify(cfg, f, loaded.rev)
	db.closing, db.close = context.WithCancel(context.Background())
	db.queue.init()
	db.history = newHistory(loaded.rev, loaded.compacted, db.read)
	db.history.dead = loaded.dead
	db.history.mark(time.Now())
	db.room = room{living: loaded.living, limit: cfg.MaxBytes, expendable: cfg.Expendable, path: cfg.Path}
	db.living.Store(loaded.living)
	db.state.Store(&state{index: loaded.index.snapshot(), rev: loaded.rev})
	cfg.Log.Debug("store opened", "path", cfg.Path, "objects", loaded.index.len(), "revision", int64(loaded.rev),
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

// rev is the last committed revision.
func (db *DB) rev() Revision { return db.state.Load().rev }

// Revision implements Store.
func (db *DB) Revision(context.Context) (Revision, error) {
	if db.closing.Err() != nil {
		return 0, ErrClosed
	}
	return db.rev(), nil
}

// Len is the number of keys.
func (db *DB) Len() int { return db.state.Load().index.len() }

// Get implements Store.
func (db *DB) Get(_ context.Context, key string) (Entry, bool, error) {
	if db.closing.Err() != nil {
		return Entry{}, false, ErrClosed
	}
	e, ok := db.state.Load().index.get(key)
	if !ok {
		return Entry{}, false, nil
	}
	return *e, true, nil
}

// Run commits and compacts until ctx ends or Close is called; it returns nil then. Whatever it has not committed by then
// fails with ErrClosed; reading goes on until Close. Only one Run can be active.
func (db *DB) Run(ctx context.Context) error {
	if db.closing.Err() != nil {
		return ErrClosed
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
		db.history.closeWatchers()
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
