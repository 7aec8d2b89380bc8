// Package objects holds the hub's typed view of the object log: a cache that follows the store's changes, the typed forms
// of recent revisions, indexes and subscriptions. Every reader inside the hub reads it. It has no verbs.
//
//	Store ── Watch ──► Cache.Run ──► kinds that are read typed ──► Get, List, Index, Subscribe
//	                                      │
//	   writers ── Offer, Settle ──► typed forms of recent revisions ──► Typed, AtHand
//
// The cache is a moment behind the store. A caller that needs what a commit wrote waits for it: a commit returns its revision, and
// WaitFor returns once reads show that revision. CatchUp waits for all that was committed before the call. Neither polls,
// and neither waits when the cache is there already.
//
// A revision is decoded at most once: by its writer when that is in this process, otherwise by its first
// reader. Objects that this package returns are shared: read-only.
package objects
