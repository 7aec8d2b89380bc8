package stream

import (
	"context"
	"fmt"
	"io"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/wire"
)

// exec runs one more process in a container, joined with the stream, and returns how it ended.
func (v *Server) exec(ctx context.Context, c *cruntime.Container, req wire.StreamRequest, s wire.Stream) (wire.StreamEnd, error) {
	if len(req.Command) == 0 {
		return wire.StreamEnd{}, badRequest("you must specify at least one command for the container")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	spec := cruntime.ExecSpec{Command: req.Command, TTY: req.TTY}
	resize := make(chan cruntime.Size, 4)
	spec.Resize = resize
	var feed io.WriteCloser
	if req.Stdin {
		in, out := io.Pipe()
		defer in.Close()
		spec.Stdin, feed = in, out
	}
	if req.Stdout || req.TTY {
		spec.Stdout = sender{ctx, s, wire.ChannelStdout}
	}
	if req.Stderr && !req.TTY {
		spec.Stderr = sender{ctx, s, wire.ChannelStderr}
	}
	go receive(ctx, cancel, s, feed, resize)
	code, err := v.cfg.Runtime.Exec(ctx, c.ID, spec)
	if err != nil {
		return wire.StreamEnd{}, err
	}
	end := wire.StreamEnd{ExitCode: code}
	if code != 0 {
		end.Message = fmt.Sprintf("command terminated with exit code %d", code)
	}
	return end, nil
}
