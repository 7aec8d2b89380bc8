//go:build unix && !linux

package svcproxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// freeBind is a Linux feature; elsewhere this package only serves tests and tools.
func freeBind(string, string, syscall.RawConn) error { return nil }

// peek tells whether a datagram waits (nil), none does (EAGAIN), or an error does.
func peek(fd uintptr) error {
	var b [1]byte
	_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err
}
