// Package porttest gives tests addresses for programs that listen, which nobody else takes before they do.
package porttest

import (
	"fmt"
	"os"
	"sync/atomic"
)

// allocated counts the addresses that this process has returned; grows only.
var allocated atomic.Uint32

// Address returns an address, host and port, for a program of a test to listen at, also again after an end. A port that was found
// free may be taken the next moment, even as the near end of a connection. So each process has a host of its own, made of its id,
// which works because the kernel answers for all of 127.0.0.0/8, while listeners and connections of others are at 127.0.0.1. Ports
// are below those that the kernel gives to connections.
func Address() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+pid>>16&0x3f, pid>>8&0xff, pid&0xff, 20000+allocated.Add(1)%10000)
}
