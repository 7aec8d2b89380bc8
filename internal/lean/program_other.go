//go:build !linux

package lean

// dropProgram does nothing: hubs and agents run on Linux, elsewhere the binary is a client.
func dropProgram() (int, error) { return 0, nil }
