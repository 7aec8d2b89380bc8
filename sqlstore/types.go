package sqlstore

import (
	"context"
	"errors"
	"fmt"
)

// ErrClosed is returned by a store, or a watcher, after it was closed.
var ErrClosed = errors.New("store is closed")

// Revision numbers one change of one key. Revisions are dense (no gaps), global to the store and start at 1; 0 means "no revision".
type Revision int64

// AnyRevision in Op.If makes the operation unconditional.
const AnyRevision Revision = -1

// Entry is one key as of some revision. Value is shared with the store: read it, never write to it.
type Entry struct {
	Key     string
	Value   []byte
	Rev     Revision // the revision that wrote Value
	Created Revision // the revision that created the key, after its last deletion
}

// Op is one change of one key. Each Op of a transaction gets its own revision, in order, and the revisions of one
// transaction are consecutive.
type Op struct {
	Key string
	// Delete removes the key. Value, when set, is the object's last state: it is what watchers get.
	Delete bool
	// Value is handed over to the store; the caller must not touch it again.
	Value []byte
	// RevAt is the offset in Value at which the store inserts the Op's revision, in decimal, before it commits: how a
	// stored object carries its own resourceVersion. Negative: nowhere.
	RevAt int
	// Frees says that the Op is a step on the way to a deletion, such as marking an object as one that is to go: a full store
	// takes it although the object grows by a little.
	Frees bool
	// Reserve says that the share of a tenant does not bind the Op, the store's own limit does: for those who keep it in order.
	Reserve bool
	// If is the revision that the key must have for the transaction to commit: 0 means that the key must not exist,
	// AnyRevision that it does not matter.
	If Revision
}

// Event is one committed change.
type Event struct {
	Key     string
	Rev     Revision
	Created Revision // as in Entry; equal to Rev when the event created the key
	Deleted bool
	// Value is the new value; for a deletion the last state given with the Op, nil if none was given or the disk was full.
	Value []byte
	Prev  []byte // value before the change, nil when the event created the key
}

// Page answers a list.
type Page struct {
	Entries []Entry
	Rev     Revision // the whole page is exactly as of this revision
	More    bool     // more entries follow the last one
	Remain  int      // how many entries follow the last one; exact
}

// ConflictError says which precondition of a transaction failed. Nothing of the transaction was committed.
type ConflictError struct {
	Key  string
	Have Revision // what the key has now; 0 when it does not exist
	Want Revision // what Op.If asked for
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("key %q is at revision %d, not %d", e.Key, e.Have, e.Want)
}

// CompactedError says that history before Oldest is gone: list again.
type CompactedError struct {
	Asked, Oldest Revision
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("revision %d has been compacted, the oldest kept is %d", e.Asked, e.Oldest)
}

// FutureError says that a revision was asked for that the store has not reached.
type FutureError struct {
	Asked, Current Revision
}

func (e *FutureError) Error() string {
	return fmt.Sprintf("revision %d is in the future, the store is at %d", e.Asked, e.Current)
}

// Watcher follows changes from a revision on. It never misses an event and never blocks a commit.
type Watcher interface {
	// Next waits for events and returns them in revision order, at least one, always up to a commit boundary. When ctx
	// ends it returns ctx.Err(). *CompactedError when the watcher fell so far behind that history it needs is gone.
	Next(ctx context.Context) ([]Event, error)
	// Revision up to which everything has been returned by Next: also advances with commits that touched other prefixes.
	Revision() Revision
	// Close frees it. Next returns ErrClosed afterwards.
	Close()
}
