//go:build !unix

package seal

// lockDir does nothing: hubs run on Linux.
func lockDir(string) (unlock func(), err error) { return func() {}, nil }
