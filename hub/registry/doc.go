// Package registry holds the verbs on objects (create, get, list, watch, update, patch, delete) as functions of plain
// values on top of the object log, and the hub's decoded cache that its loops read. HTTP lives in hub/apiserver.
//
// Every write goes the same way, whoever asks:
//
//	read current → apply body or patch → strategy (resource.Rules) → admission → compare-and-commit
//	     ▲                                                                            │
//	     └────────────── the object changed meanwhile: start again ───────────────────┘
//
// Reads hand out the stored bytes. The typed form of a revision is made at most once: by the writer that made the
// revision when there was one in this process, otherwise by whoever needs it first; controllers, selectors and later
// writes share it, read-only.
//
//	Verbs, control.Writer ─► plan (pure rules) ─► Store.Commit
//	                              │ typed object          │ events
//	                              ▼                       ▼
//	                          decoded ◄──────────────── feed (Run) ─► Reader, Subscribe, event expiry
//
// A kind's objects are only decoded when someone reads that kind typed, so a hub without loops on a kind pays nothing
// for it but its bytes.
package registry
