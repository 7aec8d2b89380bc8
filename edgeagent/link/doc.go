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
//
// The session is tested beside it, by text scripts; here is tested how connections are paced. The whole link, with a hub, a
// broker and a disk, is tested in test/link: cuts and black holes (TestCut, TestBlackHole), full disks (TestDiskFull), refusals
// and clones (TestNameTaken, TestClone, TestRemoved), streams (TestStream), traffic at rest (TestIdleTraffic).
package link
