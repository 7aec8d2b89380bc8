package sqlstore

import "context"

// Store is a revisioned object log, the contract between what keeps objects and what serves them. All methods are safe for
// concurrent use; what they return is shared, see Ownership above.
//
// ctx bounds how long a call may wait. A call that has its answer at hand may give it although ctx has ended; otherwise it
// returns ctx's error. Any method may also fail with an error of the engine's own (a disk, a connection), and all return
// ErrClosed once the store is closed. An error means that the question was not answered: it never means "nothing there".
type Store interface {
	// Commit makes all ops durable, or none, and returns the revision of each. Ops of one Commit see those before them; no
	// ops are no error. *ConflictError when a precondition fails or a key to delete does not exist, *FullError when
	// the store takes nothing that makes it grow. After any error, ctx's included, nothing was committed.
	Commit(ctx context.Context, ops ...Op) ([]Revision, error)
	// Get returns the key's current entry; ok is false when it does not exist. What a Commit has returned before Get was
	// called, Get sees.
	Get(ctx context.Context, key string) (e Entry, ok bool, err error)
	// Revision returns the last committed revision, 0 for a store in which nothing has ever happened.
	Revision(ctx context.Context) (Revision, error)
	// List returns keys with the prefix in order, those greater than after (if set), at most limit (0: all), exactly as of
	// revision at (0: now). *CompactedError when that is no longer kept, *FutureError when it has not been reached.
	List(ctx context.Context, prefix, after string, limit int, at Revision) (Page, error)
	// Watch follows every change of keys with the prefix after revision from. ctx bounds the opening only: the Watcher
	// lives until it is closed, and each Next has a ctx of its own. *CompactedError, *FutureError.
	Watch(ctx context.Context, prefix string, from Revision) (Watcher, error)
}
