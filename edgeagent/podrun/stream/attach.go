package stream

import (
	"context"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/wire"
)

// attach joins a stream with a container that runs: its output as the log sees it, and its stdin.
func (v *Server) attach(ctx context.Context, c *cruntime.Container, req wire.StreamRequest, s wire.Stream) (wire.StreamEnd, error) {
	at, ok := v.cfg.Runtime.(Attacher)
	if !ok || v.cfg.Logs == nil {
		return wire.StreamEnd{}, badRequest("this node's container runtime cannot attach")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	output, stop, ok := v.cfg.Logs.Subscribe(c.LogPath)
	if !ok {
		return wire.StreamEnd{}, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("container not found (%q)", c.Name)}
	}
	defer stop()
	var stdin io.WriteCloser
	if req.Stdin {
		if !c.Stdin {
			return wire.StreamEnd{}, badRequest("container %s was not started with stdin: set stdin in its definition", c.Name)
		}
		var err error
		if stdin, err = at.Stdin(ctx, *c); err != nil {
			return wire.StreamEnd{}, err
		}
	}
	resize := make(chan cruntime.Size, 4)
	go receive(ctx, cancel, s, stdin, resize)
	for {
		select {
		case <-ctx.Done():
			return wire.StreamEnd{}, context.Cause(ctx)
		case size := <-resize:
			if err := at.Resize(ctx, c.ID, size); err != nil {
				v.cfg.Log.Debug("terminal not resized", "container", c.Name, "error", err)
			}
		case out, ok := <-output:
			if !ok {
				return wire.StreamEnd{}, nil
			}
			ch := wire.ChannelStdout
			if out.Stderr {
				ch = wire.ChannelStderr
			}
			if out.Stderr && !req.Stderr || !out.Stderr && !req.Stdout {
				continue
			}
			if _, err := (sender{ctx, s, ch}).Write(out.Data); err != nil {
				return wire.StreamEnd{}, err
			}
		}
	}
}
