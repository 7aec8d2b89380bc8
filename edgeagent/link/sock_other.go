//go:build !linux

package link

import "net"

// boundUnacked does nothing here: MQTT's ping finds a half-open connection somewhat later.
func boundUnacked(net.Conn) {}
