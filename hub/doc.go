// Package hub is Petrel's hub: one process that keeps a fleet's state in one SQLite file, serves the Kubernetes API on it,
// runs the controllers and the scheduler, and holds a session with each node.
//
//	kubectl ──HTTPS──┐                                        ┌── control/<name>: one reconciler each
//	                 ├─► port ─► apiserver ─► registry ─► sqlstore
//	agents ──MQTT/TLS┘     └──► broker ◄─► dispatch ──┘ ▲     └── change feed ─► cache ─► loops, watches
//	                                                    └── admission, resource (what each kind is)
//
// This package only wires: it opens what must be open before something else, gives each part the small interface that it
// asks for, and stops them in the reverse order, so that whatever was answered has been stored.
package hub
