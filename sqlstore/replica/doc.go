// Package replica is what every engine of the object log holds in memory, and what makes it a sqlstore.Store: the current
// entries in order, the newest changes, the watchers, and how much all of it may take.
//
//	engine: Begin ─► Add, Add … ─► make Changes durable ─► Publish (or Undo)
//	                                                         │
//	            Get, Revision, List ◄── snapshot of the index │ all at once
//	                          Watch ◄── pending ◄── ring ◄────┘ ◄── Source: older changes, from the engine
//
// An engine owns durability, the order of commits and the queue in front of it; [Log] owns what readers see. Reads work on
// an immutable snapshot of a copy-on-write tree and never wait for a commit. A commit that the engine could not make durable is
// undone before anybody has seen it.
//
// Everything that decides what a Store answers is here: preconditions, revisions, pages at an older revision, what a watcher
// gets and when it must list again, what a full store takes. Two engines built on it cannot differ in that.
package replica
