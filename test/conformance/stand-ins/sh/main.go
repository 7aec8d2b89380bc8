// Command sh is the shell of the busybox image: busybox's own, but for the one command line that the distribution's
// busybox answers otherwise than the image that this stands for. Its shell runs env within itself, and then shows only the
// variables whose names are identifiers.
package main

import (
	"fmt"
	"os"
	"slices"
	"syscall"
)

func main() {
	argv, env := os.Args, os.Environ()
	if slices.Equal(os.Args[1:], []string{"-c", "env"}) {
		argv = []string{"env"}
	}
	err := syscall.Exec("/bin/busybox", argv, env)
	fmt.Fprintln(os.Stderr, "sh: /bin/busybox:", err)
	os.Exit(127)
}
