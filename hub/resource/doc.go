// Package resource knows the served kinds: one declaration each, with its codec, defaulting, validation, strategy,
// subresources, columns and indexes. The registry knows verbs, this package knows kinds.
//
// It is the only door to k8s.io/kubernetes, whose rules it borrows so that every accepted object and every refusal reads
// exactly as upstream's: defaulting and conversion come from its scheme, validation and table columns from its internal
// types. Objects are stored and handed around in their served version (v1); a rule converts to the internal type, which
// mostly shares memory with the original, applies upstream's check or mends the object, and converts back.
//
//	JSON ──Decode──► v1 object ──Rules.Default──► PrepareCreate ──► ValidateCreate ──► Encode ──► JSON with a hole for
//	                                                (internal type and back)                       the resourceVersion
//
// A kind that no Go type stands behind (Custom) has a schema in place of upstream's types, and unstructured objects. Which kinds
// are served may change while the hub runs (Kinds).
//
// New kinds: see docs/add-a-kind.md.
package resource
