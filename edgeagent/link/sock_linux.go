package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unackedLimit is how long the kernel keeps trying to deliver bytes that nobody acknowledges. Without it a half-open
// connection would look alive for a quarter of an hour.
const unackedLimit = 45 * time.Second

// boundUnacked sets the limit. A failure costs detection time only.
func boundUnacked(c net.Conn) {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedLimit/time.Millisecond))
	})
}
