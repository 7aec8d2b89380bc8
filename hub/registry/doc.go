// Package registry holds the verbs on objects (create, get, list, watch, update, patch, delete) as functions of plain
// values on top of the object log. HTTP lives in hub/apiserver, the typed cache in hub/objects. It knows verbs and names no
// kind: what is special about one is declared in hub/resource, or is a resource.Handler beside it (podverbs).
//
// Every write is a request and takes the same path, from the API and from the hub's own loops:
//
//	Verbs, ClientAs ─► resolve ─► decode ─► default ─► mutate ─► validate ─► commit
//	                   request    body,     Rules      admission  Rules, then  compare with what was
//	                              patch                           admission    read, all plans or none
//	                                 ▲                                             │
//	                                 └──── the object changed meanwhile: again ────┘
//
// Up to the commit a verb only makes a plan, which is plain data: what to write, made from which revision. One request
// commits its own plan; control.Writer.Commit makes one for each write and commits them together.
//
// Reads hand out the stored bytes. Selectors and writes need the typed form of a revision, which hub/objects makes at most
// once and shares, read-only.
package registry
