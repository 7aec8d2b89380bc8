package svcproxy

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// freeBind lets a socket listen on an address that the node does not have yet: the route for the service network may
// come later, an external address may come with a lease.
func freeBind(network, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Without it (a kernel that refuses) binding fails where the address is missing, and is retried.
		if strings.HasSuffix(network, "6") {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			return
		}
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
}

// peek reports whether a datagram waits (nil), none does (EAGAIN), or an error does.
func peek(fd uintptr) error {
	var b [1]byte
	_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err
}

// enlargeQueue gives a socket a receive queue of so many bytes, or, without the right to exceed the machine's bound, the
// largest that is allowed.
func enlargeQueue(c syscall.Conn, bytes int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
		}
	})
}
