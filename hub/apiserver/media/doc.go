// Package media is about the forms in which objects travel: JSON, YAML, protobuf and CBOR, whole, as a Table or as their metadata
// alone. It chooses the form of an answer, reads bodies, and writes answers and watch events. The store keeps JSON, so JSON is what
// it is handed, and every other form is made here.
package media
