// Package objects holds the hub's typed view of the object log: a cache that follows the store's changes, the typed forms
// of recent revisions, indexes and subscriptions. It is what every reader inside the hub reads, and knows no verb.
//
//	Store ── Watch ──► Cache.Run ──► kinds that are read typed ──► Get, List, Index, Subscribe
//	                                      │
//	   writers ── Offer, Settle ──► typed forms of recent revisions ──► Typed, AtHand
//
// The cache follows the store by a moment. Who needs what a commit wrote waits for it: a commit returns its revision, and
// WaitFor returns once reads show that revision. CatchUp waits for all that was committed before the call. Neither polls,
// and neither waits when the cache is there already.
//
// A revision is decoded at most once: by the writer that made it when there was one in this process, otherwise by its first
// reader. Objects are shared: nobody changes one that this package returned.
package objects
