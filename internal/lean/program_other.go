//go:build !linux

package lean

// dropProgram does nothing: hubs and agents run on Linux, elsewhere the binary is a client.
func dropProgram() (int, error) { return 0, nil }

// resident returns 0: no pass is due.
func resident() int { return 0 }
