//go:build !unix

package cli

import "os"

// notifyResize: this system has no signal for it, so the size stays what it was at the start.
func notifyResize(chan<- os.Signal) {}
