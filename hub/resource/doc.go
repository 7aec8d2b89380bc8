// Package resource says what a kind is: a declaration with codec, defaulting, validation, strategy, subresources, columns and
// indexes. The registry has the verbs, the declarations the kinds. Those of Kubernetes are in the rooms below this one, one for each
// API group, which builtin puts together.
//
// With them it is the only door to k8s.io/kubernetes, whose rules they use so that objects are accepted and refused exactly as
// upstream does: defaulting and conversion come from its scheme, validation and table columns from its internal
// types. Objects are stored and passed on in their served version (v1); a rule converts to the internal type, which
// mostly shares memory with the original, applies upstream's check or change, and converts back.
//
//	JSON ──Decode──► v1 object ──Rules.Default──► PrepareCreate ──► ValidateCreate ──► Encode ──► JSON with a hole for
//	                                                (internal type and back)                       the resourceVersion
//
// A kind without a Go type (Custom) has a schema in place of upstream's types, and unstructured objects. Which kinds
// are served may change while the hub runs (Kinds).
//
// New kinds: see docs/add-a-kind.md.
package resource
