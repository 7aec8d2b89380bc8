package dispatch

import (
	"strings"

	"petrel.dev/petrel/internal/wire"
)

// The process's compressor of messages is made with the first one that is worth it. One that is made in a bubble of synctest could be
// used in none but that one, and the order of tests would decide which that is.
func init() { new(wire.Pipe).Send(&wire.Refuse{Message: strings.Repeat("large ", 200)}) }
