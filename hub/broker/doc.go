// Package broker carries frames between the hub and its nodes over MQTT: with the embedded broker (Broker), or with one
// that runs elsewhere (External). Both are a dispatch.Bus. It knows topics, and nothing of what is in frames.
//
// The embedded broker has one receiver, the hub. A node may publish on its own up topics and receive from its own down
// topics; everything else is refused, and frames from nodes go straight to the hub without being routed. Nothing is
// retained, no session outlives its connection, no queue holds more than a few frames: what must arrive is repeated by
// the pipe in package wire.
//
// The broker library, mochi, lets a stalled subscriber hold up its publisher when QoS is above 0. So: frames to nodes
// are QoS 0, which go through a bounded queue of each client and are dropped when it is full; every write to a
// connection has a deadline, after which the connection is closed; keepalive 0 is refused.
//
// Tests here are of what the broker does by itself: cut a connection without waiting for its peer, keep room for known devices,
// report its health. What it carries, and who may publish what, is tested in test/link, which runs hub and agents over it and
// over Mosquitto, and in test/hostile.
package broker
