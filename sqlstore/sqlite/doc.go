// Package sqlite is the engine that keeps a sqlstore.Store durably in one SQLite file.
//
//	Commit ──► queue ──► committer ──► SQLite: one transaction, one fsync ──► publish ──► answers
//	                        │                                                   │
//	                        └── replica.Batch: preconditions, revisions         └─► replica.Log: Get, List, Watch
//
// One goroutine, [DB.Run], writes. Whatever waits when it looks becomes one SQLite transaction, so the cost of an fsync is
// shared by all who wait for it, and a lone writer waits for no other. While requests come one at a time, each is committed on
// its caller's goroutine: nothing has to wake up for it. What upkeep that makes due is Run's. A transaction whose precondition fails is left out
// and the others go on. Reads never touch SQLite, but for history that has left memory, and never wait for a writer.
//
// The file is one append-only table, log, one row a revision and no secondary index; superseded rows are deleted behind a
// moving horizon, the compacted revision, a few at a time and only after writes. An idle store writes
// nothing. `sqlite3 hub.db "select * from objects"` shows what is in it; docs/store.md has the rest.
//
// Lifecycle: Open loads and checks the file, and Get, List and Watch work from then on. Commit, Compact wait until Run
// is running. Close ends Run and frees the file.
package sqlite
