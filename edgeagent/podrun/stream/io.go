package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// sender writes to one channel of a stream.
type sender struct {
	ctx context.Context
	s   wire.Stream
	ch  wire.Channel
}

// chunk is the largest piece sent at once: a stream's frames are small, so that streams take turns.
const chunk = 32 << 10

func (w sender) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += chunk {
		if err := w.s.Send(w.ctx, w.ch, p[n:min(n+chunk, len(p))]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// receive reads what comes in until the stream ends: stdin, its end, and sizes of the terminal. It cancels when the
// peer goes, because the process has no reader then.
func receive(ctx context.Context, cancel context.CancelCauseFunc, s wire.Stream, stdin io.WriteCloser, resize chan<- cruntime.Size) {
	if err := contain.Do(nil, "podrun/receive", "stream", func() error { receiving(ctx, cancel, s, stdin, resize); return nil }); err != nil {
		cancel(err)
	}
}

// receiving is receive without its guard against panics.
func receiving(ctx context.Context, cancel context.CancelCauseFunc, s wire.Stream, stdin io.WriteCloser, resize chan<- cruntime.Size) {
	closeStdin := func() {
		if stdin != nil {
			stdin.Close()
			stdin = nil
		}
	}
	defer closeStdin()
	for {
		ch, data, err := s.Recv(ctx)
		if err != nil {
			cancel(fmt.Errorf("stream: %w", err))
			return
		}
		switch {
		case ch == wire.ChannelStdin && data == nil:
			closeStdin()
		case ch == wire.ChannelStdin && stdin != nil:
			if _, err := stdin.Write(data); err != nil { // the process reads no more
				closeStdin()
			}
		case ch == wire.ChannelResize && data != nil:
			var size cruntime.Size
			if json.Unmarshal(data, &size) == nil {
				select {
				case resize <- size:
				case <-ctx.Done():
				}
			}
		}
	}
}
