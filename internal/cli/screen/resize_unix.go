//go:build unix

package screen

import (
	"os"
	"os/signal"
	"syscall"
)

// NotifyResize sends a signal to c when the terminal's size changes.
func NotifyResize(c chan<- os.Signal) { signal.Notify(c, syscall.SIGWINCH) }
