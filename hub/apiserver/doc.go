// Package apiserver speaks the Kubernetes API over HTTP. It has routes, media types, streaming, discovery and the form of
// errors, and nothing about objects. registry.Verbs does what a verb does, resource.Kinds declares the kinds, and podstream
// carries the bytes of pods.
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
