// Package dispatch keeps one session with every node in reach: it sends what the node should run, stores what the node
// reports, and opens streams to its pods. It uses internal/wire, and nothing of MQTT.
//
//	change feed ──► desired, tokens ──► wire.Sender ─┐
//	                                                 session ◄──► Bus
//	store ◄── intake, images ◄── batches of reports ─┘
//
// One goroutine, the loop, owns all of it: it passes changes, frames and times to the packages below, and what they return to the
// sessions. Commits, joins and tokens run beside it, and their results come back as calls. A session that may have something to do
// is queued (enqueue), and only the loop drains it (drainAll): nothing below calls back up.
//
// Only what the API shows is stored: Nodes, statuses, Events. What the hub knows of a session is lost with the process, and restored
// by comparing hashes.
//
//	desired   what each node should have; pure
//	tokens    the ServiceAccount tokens of pods
//	images    which image exists for which architecture
//	session   the hub's side of one session; pure
//
// Tests beside the code drive the loop over a bus in memory. Both ends of the link together, over the embedded broker,
// Mosquitto and a net that drops, doubles and delays, are tested in test/link; many nodes in test/hollow.
package dispatch
