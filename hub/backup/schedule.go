package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/robfig/cron/v3"

	"petrel.dev/petrel/internal/contain"
)

// Schedule says when a hub writes archives of itself, where, and how many are kept.
type Schedule struct {
	Dir  string // on another disk than the store's, best; made when it does not exist
	Cron string // five fields, local time
	Keep int    // the newest so many stay; other files in Dir are left alone
	// Recipients are those who can decrypt them; none: the archives are not encrypted, and have mode 0600.
	Recipients []age.Recipient
	// State names what the store holds just now: its history and revision. While it and the keys are as in the newest archive, none is written.
	State func() string
	Log   *slog.Logger
}

// Check returns what is wrong with the schedule.
func (s Schedule) Check() error {
	if _, err := cron.ParseStandard(s.Cron); err != nil {
		return fmt.Errorf("%q is no schedule in the form of cron, such as \"0 4 * * *\" (%w)", s.Cron, err)
	}
	if s.Keep < 1 {
		return fmt.Errorf("%d archives to keep is less than one", s.Keep)
	}
	return nil
}

// retry is how long after a failure the next try is made, when the schedule is not sooner.
const retry = time.Hour

// Run writes archives when they are due, until ctx ends. It sleeps from one time of the schedule to the next.
func (s Schedule) Run(ctx context.Context, from Source) error {
	at, err := cron.ParseStandard(s.Cron)
	if err != nil {
		return err
	}
	wait := time.Until(at.Next(time.Now()))
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := contain.Do(s.Log, "hub/backup", s.Dir, func() error { return s.write(ctx, from, time.Now()) })
		if ctx.Err() != nil {
			return nil
		}
		wait = max(time.Until(at.Next(time.Now())), time.Second)
		if err != nil {
			wait = min(wait, retry)
			s.Log.Error("scheduled backup failed", "error", err, "again", wait)
		}
	}
}

const archiveTime = "20060102T150405Z"

// archive is what the name of an archive says: when it was made, and a digest of what it holds.
type archive struct {
	at    time.Time
	state string // 12 letters
	path  string
}

func (a archive) name(encrypted bool) string {
	name := fmt.Sprintf("petrel-%s-%s.tar.zst", a.at.UTC().Format(archiveTime), a.state)
	if encrypted {
		name += ".age"
	}
	return name
}

// archives returns those in the schedule's directory, the newest first.
func (s Schedule) archives() (out []archive) {
	entries, _ := os.ReadDir(s.Dir)
	for _, e := range entries {
		var stamp string
		var a archive
		if _, err := fmt.Sscanf(e.Name(), "petrel-%16s-%12s.tar.zst", &stamp, &a.state); err != nil {
			continue
		}
		at, err := time.Parse(archiveTime, stamp)
		a.at, a.path = at, filepath.Join(s.Dir, e.Name())
		if err == nil && (e.Name() == a.name(false) || e.Name() == a.name(true)) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b archive) int { return b.at.Compare(a.at) })
	return out
}

// write writes an archive unless the newest holds the same, and removes those that are too many.
func (s Schedule) write(ctx context.Context, from Source, now time.Time) error {
	keys, err := from.keys()
	if err != nil {
		return err
	}
	state := sha256.New()
	fmt.Fprintln(state, s.State())
	for _, k := range keys {
		fmt.Fprintln(state, k.file.Name, k.file.SHA256)
	}
	next := archive{at: now, state: hex.EncodeToString(state.Sum(nil))[:12]}
	have := s.archives()
	if len(have) > 0 && have[0].state == next.state {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	next.path = filepath.Join(s.Dir, next.name(len(s.Recipients) > 0))
	m, err := from.Write(ctx, next.path, s.Recipients...)
	if err != nil {
		return err
	}
	s.Log.Info("hub backed up", "path", next.path, "revision", m.Revision, "took", time.Since(now))
	// The new one stays, whatever the clock says: a board without a battery may have made others in its future.
	old := slices.DeleteFunc(s.archives(), func(a archive) bool { return a.path == next.path })
	for _, a := range old[min(s.Keep-1, len(old)):] {
		if err := os.Remove(a.path); err != nil {
			s.Log.Warn("old backup could not be removed", "path", a.path, "error", err)
		}
	}
	return nil
}
