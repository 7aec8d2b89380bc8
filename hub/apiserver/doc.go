// Package apiserver speaks the Kubernetes API over HTTP. It knows routes, media types, streaming, discovery and what an
// error looks like on the wire; it knows nothing of objects. What a verb does is registry.Verbs, what a kind is is
// resource.Kinds, the bytes of pods go through podstream.
//
//	        ┌ recover ─ log ─ in flight ─ authenticate ─ authorize ┐
//	request ┤                                                      ├─ route ─┬─ /api, /apis: discovery   /openapi: schemas
//	        └──────────────────────────────────────────────────────┘         ├─ objects: decode → Verbs → encode
//	                                                                         ├─ watch: frames, flushed as they come
//	                                                                         └─ log, exec, attach, portforward → podstream
//
// Objects leave as the bytes that the store holds: GET writes them, LIST joins them into the list's envelope, a watch wraps
// each into an event. They are decoded only when a client wants another form (Table, protobuf, YAML, metadata only).
package apiserver
