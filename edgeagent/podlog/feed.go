package podlog

import (
	"fmt"
	"log/slog"
	"os"

	"petrel.dev/petrel/internal/contain"
)

// Feed appends what a container writes to a pipe to a spool, in place of a shim that has given up, until the container
// has ended. What does not fit on the disk is lost: the container must not wait for that. It owns the pipe.
func Feed(log *slog.Logger, spool string, pipe *os.File) error {
	to, err := os.OpenFile(spool, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		pipe.Close()
		return fmt.Errorf("container log: %w", err)
	}
	go contain.Go(log, "podlog/feed", spool, func() { feed(to, pipe) })
	return nil
}

func feed(to, pipe *os.File) {
	defer to.Close()
	defer pipe.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := pipe.Read(buf)
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			return // the container has ended
		}
	}
}
