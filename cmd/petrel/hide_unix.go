//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// hideToken starts this program again, in this process, with args and the token in the environment. It returns only when it
// could not.
func hideToken(args []string, token string) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	return unix.Exec(path, args, append(os.Environ(), joinVariable+"="+token))
}
