// Package dispatch keeps one session with every node in reach: it composes what the node should run, sends the
// difference, takes in what the node reports, and opens streams to its pods. It speaks wire and knows no MQTT.
//
//	change feed ──► compose (per node, only who is concerned) ──► wire.Sender ─┐
//	                                                                          session ◄──► Bus
//	store ◄── intake (one transaction for many nodes) ◄── batches of reports ──┘
//
// One goroutine, the loop, owns all of it; commits, joins and tokens run beside it and come back as calls. Nothing here
// is stored but what the API shows: Nodes, statuses, events. What the hub remembers of a session is lost with the process
// and found again by comparing hashes.
package dispatch
