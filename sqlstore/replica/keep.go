package replica

import (
	"time"

	"petrel.dev/petrel/sqlstore"
)

// Keep bounds the history that is kept. Zero fields have a default.
type Keep struct {
	// For is how long superseded values stay readable by watches and by lists at an older revision. 0: 5 minutes.
	For time.Duration
	// Revisions bounds the same by number, however young. 0: 20,000.
	Revisions int
	// Bytes bounds the same by the bytes of what was superseded. 0: 32 MiB, about what 20,000 revisions of usual size have.
	Bytes int64
}

func (k *Keep) setDefaults() {
	if k.For <= 0 {
		k.For = 5 * time.Minute
	}
	if k.Revisions <= 0 {
		k.Revisions = 20_000
	}
	if k.Bytes <= 0 {
		k.Bytes = 32 << 20
	}
}

// minForget is how many revisions must be beyond the bounds before they are forgotten: a few pages of a file now and then
// instead of one with each commit.
const minForget = 256

// Mark notes the time of the newest revision, when that is due. Engines call it after commits: the age of history is counted
// by it.
func (l *Log) Mark(now time.Time) {
	if h := l.history; h.due(now, l.keep.For, l.keep.Bytes) {
		h.mark(now)
	}
}

// Due returns up to which revision history is beyond its bounds, when it is forgotten up to done already; done itself when it
// is not worth it yet. over: it has more bytes than it may.
func (l *Log) Due(now time.Time, done sqlstore.Revision) (to sqlstore.Revision, over bool) {
	bytes := l.history.superseded(done)
	over = bytes > l.keep.Bytes
	to = l.history.horizon(now, l.keep.For, l.keep.Revisions, l.keep.Bytes, bytes)
	if to-done < minForget && !over {
		to = done
	}
	return max(to, done), over
}

// Forget moves the oldest revision that can be listed, or watched from, to to. An engine calls it before it deletes anything:
// readers of a Source check it after they have read, so a read is whole or refused, without a lock between the two.
func (l *Log) Forget(to sqlstore.Revision) { l.history.forget(to) }

// Compacted returns the oldest revision that can be listed, or watched from.
func (l *Log) Compacted() sqlstore.Revision { return l.history.oldest() }
