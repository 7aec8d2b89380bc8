// Package sqlstore is Petrel's object log: keys and values with one dense, global sequence of revisions. It holds the contract
// only: what is stored ([Entry], [Op], [Event], [Page]), [Store] and [Watcher], and the errors that they return. An engine keeps
// it: sqlite in one file, which is what a hub has, or memory, for tests. Only the hub's wiring names an engine.
//
//	hub/registry ─► Store (this package) ◄─ implemented by ─ sqlite, memory
//	                                                           └─ built on ─► replica: index, history, watchers, limits
//
// A [Sealing] store lies over an engine and keeps values encrypted there.
//
// # Consistency
//
// Revisions are dense, begin with 1, and those of one Commit are consecutive. A Commit is seen as a whole or not at all, by
// Get, List and Watch alike, and by all of them once it has returned. A page is exactly as of one revision, and so are the
// pages after it. A Watcher misses nothing: in order, whole commits at a time, or it fails with *CompactedError. Revisions may be
// compared within one history only: a store that may have gone back in time (a restored backup) begins another, and
// engines name theirs.
//
// # Ownership
//
// Op.Value is the store's once Commit has been called, also when Commit fails. What a Store or Watcher returns is
// shared: read it, never write to it. The caller of Watch closes the Watcher; the one who opened the
// store runs and closes it.
//
// # Errors
//
//	*ConflictError   Commit        a precondition does not hold, or a key to delete does not exist; the key is seen at Have
//	*FullError       Commit        the op makes the store grow, and it must not
//	*CompactedError  List, Watch, Next   history before Oldest is gone: list again
//	*FutureError     List, Watch   the revision has not been reached: another history, perhaps
//	ErrClosed        all           the store, or the watcher, was closed
//	ctx.Err()        all           the call's time was over; of a Commit nothing was committed
//	any other        all           the engine failed (a disk, a connection), or an Op is malformed; of a Commit nothing was committed
//
// storetest checks all of this for any engine; docs/store.md says how the engines do it.
package sqlstore
