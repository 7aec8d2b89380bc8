// Package fieldmanager keeps which program manages which field of an object (metadata.managedFields), and applies
// configurations by it: server-side apply. The merging is upstream's (k8s.io/apimachinery, structured-merge-diff); here is what
// it goes by, and when it runs.
//
//	POST, PUT, PATCH ─► Created, Updated ─┐
//	                                      ├─► object with managedFields ─► admission, rules, commit
//	PATCH, apply     ─► Apply ────────────┘
//	PUT, PATCH, apply of a Scale ─► Scale, of which the managers are those of its parent's replicas
//
// An object is tracked from the first apply on, not from its creation: a write of an object without managedFields costs one
// comparison, and a hub that never sees an apply describes no kind. What was written before is then recorded as upstream records it
// for such objects, by "before-first-apply", and by kubectl's client-side apply where its annotation says what that set
// (docs/adr/0010-managed-fields.md).
//
// Kinds are described by their types.TypeConverter: built on first use, and dropped again when nobody applies.
package fieldmanager
