// Package link keeps the device in touch with its hub: it dials out, again and again, and drives one session at a time.
//
//	identity ─► dial (pinned TLS, MQTT) ─► session (pure) ─► cache
//	                                          │  ▲             │ reports
//	                                          ▼  └─────────────┘
//	                                       streams ─► Config.Serve
//
// It is the only importer of the MQTT client, paho, and takes from it one connection at a time: no automatic reconnect,
// a new client object for each connection, handlers that only hand over, a write time-out. Connecting needs no clock:
// the hub is known by its key.
package link
