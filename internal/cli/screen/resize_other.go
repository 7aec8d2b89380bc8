//go:build !unix

package screen

import "os"

// NotifyResize does nothing: this system has no signal for it, so the size stays what it was at the start.
func NotifyResize(chan<- os.Signal) {}
