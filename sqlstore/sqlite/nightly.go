package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/sqlstore"
)

// Backups says when backups are made by themselves, and how many are kept.
type Backups struct {
	Dir  string // made when it does not exist
	Keep int    // the newest so many stay; others in Dir that are not named like them are left alone
	// Hour of the local day at which they are made, when the store has changed since the last one.
	Hour int
	// FirstAfter is how long after the start one is made when the last is older than a day.
	FirstAfter time.Duration
}

// backupRetry is how long after a failure the next try is made.
const backupRetry = time.Hour

const backupTime = "20060102T150405Z"

// PartSuffix ends the name of a backup while it is being written.
const PartSuffix = ".part"

// backupFile is what the name of a backup says.
type backupFile struct {
	at      time.Time
	rev     sqlstore.Revision
	history string // the first 8 letters
	path    string
}

func (b backupFile) name() string {
	return fmt.Sprintf("hub-%s-%d-%s.db", b.at.UTC().Format(backupTime), b.rev, b.history)
}

// parseBackup reads a name; ok is false when it is none that name made.
func parseBackup(name string) (b backupFile, ok bool) {
	var stamp string
	if _, err := fmt.Sscanf(name, "hub-%16s-%d-%8s.db", &stamp, &b.rev, &b.history); err != nil {
		return b, false
	}
	at, err := time.Parse(backupTime, stamp)
	b.at = at
	return b, err == nil && b.name() == name
}

// listBackups returns the backups in dir, the newest first.
func listBackups(dir string) (out []backupFile) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if b, ok := parseBackup(e.Name()); ok {
			b.path = filepath.Join(dir, e.Name())
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b backupFile) int { return b.at.Compare(a.at) })
	return out
}

// dropParts removes what a power cut has left of backups in dir.
func dropParts(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if name, part := strings.CutSuffix(e.Name(), PartSuffix); part {
			if _, ours := parseBackup(name); ours {
				_ = os.Remove(filepath.Join(dir, e.Name())) // it only takes room
			}
		}
	}
}

// RunBackups makes a backup each night in which there is something new, until ctx ends. While the store does not change it
// writes nothing and wakes once a day.
func (db *DB) RunBackups(ctx context.Context, p Backups) error {
	dropParts(p.Dir)
	wait := p.first(time.Now())
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := contain.Do(db.cfg.Log, "sqlstore/backup", db.cfg.Path, func() error { return db.backupIfDue(ctx, p, time.Now()) })
		if ctx.Err() != nil {
			return nil
		}
		wait = p.next(time.Now())
		if err != nil {
			wait = min(wait, backupRetry)
			db.cfg.Log.Error("backup of the store failed", "error", err, "again", wait)
		}
	}
}

// first returns how long to wait for the first backup after a start.
func (p Backups) first(now time.Time) time.Duration {
	wait := p.next(now)
	if have := listBackups(p.Dir); len(have) == 0 || now.Sub(have[0].at) > 24*time.Hour || have[0].at.After(now) {
		wait = min(wait, p.FirstAfter)
	}
	return wait
}

// next returns the time to the next night's hour.
func (p Backups) next(now time.Time) time.Duration {
	local := now.Local()
	at := time.Date(local.Year(), local.Month(), local.Day(), p.Hour, 0, 0, 0, time.Local)
	for !at.After(local.Add(time.Minute)) {
		at = at.AddDate(0, 0, 1)
	}
	return at.Sub(local)
}

// backupIfDue makes a backup unless the newest one holds what the store does.
func (db *DB) backupIfDue(ctx context.Context, p Backups, now time.Time) error {
	b := backupFile{at: now, rev: db.rev(), history: db.id[:8]}
	have := listBackups(p.Dir)
	if b.rev == 0 || slices.ContainsFunc(have, func(o backupFile) bool { return o.rev == b.rev && o.history == b.history }) {
		return nil
	}
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	living, _ := db.Usage()
	if free, _, ok := diskSpace(p.Dir); ok && free < living+living/4+2*maxReserve {
		return fmt.Errorf("backup of %.1f MiB does not fit: %.1f MiB are free in %s", float64(living)/(1<<20), float64(free)/(1<<20), p.Dir)
	}
	path := filepath.Join(p.Dir, b.name())
	begin := time.Now()
	if _, err := db.Backup(ctx, path); err != nil {
		return err
	}
	db.cfg.Log.Info("store backed up", "path", path, "revision", int64(b.rev), "took", time.Since(begin))
	// The new one stays, whatever the clock says: a board without a battery may have made others in its future.
	have = slices.DeleteFunc(listBackups(p.Dir), func(o backupFile) bool { return o.path == path })
	for _, old := range have[min(max(p.Keep, 1)-1, len(have)):] {
		if err := os.Remove(old.path); err != nil {
			db.cfg.Log.Warn("old backup could not be removed", "path", old.path, "error", err)
		}
	}
	return nil
}
