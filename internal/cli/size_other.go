//go:build !unix

package cli

import "os"

// notifyResize does nothing: this system has no signal for it, so the size stays what it was at the start.
func notifyResize(chan<- os.Signal) {}
