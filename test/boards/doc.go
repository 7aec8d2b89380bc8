// Package boards holds tests of a fleet of which one node is an emulated board: another processor, a kernel and a disk of its own,
// with a power switch. Hub, registry and the other node run in network namespaces here ([harness.LAN]); the board's only way out is
// qemu's user network in a third one, so that it reaches the others, they do not reach it, and its cable can be pulled.
//
// `make boards BOARDS=arm64-mixed` makes the board ready and runs them. They take half an hour and need root.
package boards
