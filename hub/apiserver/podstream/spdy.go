package podstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// streamsWait is how long a client may take to open the streams that its request announced.
const streamsWait = 30 * time.Second

const (
	terminalStreams = 5   // stdin, stdout, stderr, error, resize
	maxResize       = 256 // bytes of one resize message
)

// spdyTerminal is a terminal over SPDY: one stream for each channel, version 4 of the protocol.
type spdyTerminal struct {
	conn                                  httpstream.Connection
	log                                   *slog.Logger
	key                                   string // names the pod where a panic is contained
	stdin, stdout, stderr, failed, resize httpstream.Stream
}

func (x *stream) spdyTerminal(req wire.StreamRequest) (terminal, error) {
	if _, err := httpstream.Handshake(x.R, x.W, []string{"v4.channel.k8s.io"}); err != nil {
		return nil, err
	}
	arrived := make(chan httpstream.Stream, terminalStreams) // room for all, so that no sender waits
	var accepted atomic.Int32
	conn, err := x.spdyUpgrade(func(s httpstream.Stream, replied <-chan struct{}) error {
		if accepted.Add(1) > terminalStreams {
			return fmt.Errorf("a terminal has %d streams", terminalStreams)
		}
		// A stream may be used when the client knows that it was accepted. replied closes when accept has returned.
		go func() { <-replied; arrived <- s }()
		return nil
	})
	if err != nil {
		return nil, err
	}
	t := &spdyTerminal{conn: conn, log: x.Log, key: x.key()}
	if err := t.await(arrived, req); err != nil {
		conn.Close()
		return nil, err
	}
	return t, nil
}

func (t *spdyTerminal) await(arrived <-chan httpstream.Stream, req wire.StreamRequest) error {
	want := 1
	for _, b := range []bool{req.Stdin, req.Stdout, req.Stderr, req.TTY} {
		if b {
			want++
		}
	}
	late := time.NewTimer(streamsWait)
	defer late.Stop()
	for ; want > 0; want-- {
		select {
		case s := <-arrived:
			switch kind := s.Headers().Get(corev1.StreamType); kind {
			case corev1.StreamTypeStdin:
				t.stdin = s
			case corev1.StreamTypeStdout:
				t.stdout = s
			case corev1.StreamTypeStderr:
				t.stderr = s
			case corev1.StreamTypeError:
				t.failed = s
			case corev1.StreamTypeResize:
				t.resize = s
			default:
				return fmt.Errorf("the client opened a stream of unknown type %q", kind)
			}
		case <-t.conn.CloseChan():
			return errors.New("the client went away")
		case <-late.C:
			return fmt.Errorf("the client did not open its streams within %s", streamsWait)
		}
	}
	return nil
}

func (t *spdyTerminal) read(send func(wire.Channel, []byte) error, closed func(wire.Channel) error) {
	var one oneSender
	var wg sync.WaitGroup
	if t.stdin != nil {
		wg.Go(func() {
			contain.Go(t.log, "hub/apiserver/podstream/stdin", t.key, func() { t.readInput(&one, send, closed) })
		})
	}
	if t.resize != nil {
		wg.Go(func() {
			contain.Go(t.log, "hub/apiserver/podstream/resize", t.key, func() { t.readSizes(&one, send) })
		})
	}
	<-t.conn.CloseChan()
	wg.Wait()
}

func (t *spdyTerminal) readInput(one *oneSender, send func(wire.Channel, []byte) error, closed func(wire.Channel) error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := t.stdin.Read(buf)
		if n > 0 && one.do(func() error { return send(wire.ChannelStdin, buf[:n]) }) != nil {
			return
		}
		if err != nil {
			_ = one.do(func() error { return closed(wire.ChannelStdin) })
			return
		}
	}
}

// readSizes passes on resize messages. It ends at one that cannot be decoded, or is too long.
func (t *spdyTerminal) readSizes(one *oneSender, send func(wire.Channel, []byte) error) {
	defer func() { _ = t.resize.Reset() }() // what still comes is dropped by the library
	bounded := &io.LimitedReader{R: t.resize}
	for dec := json.NewDecoder(bounded); ; {
		bounded.N = maxResize
		var s size
		if dec.Decode(&s) != nil {
			return
		}
		b, err := json.Marshal(s)
		if err != nil || one.do(func() error { return send(wire.ChannelResize, b) }) != nil {
			return
		}
	}
}

func (t *spdyTerminal) write(ch wire.Channel, data []byte) error {
	s := t.stdout
	if ch == wire.ChannelStderr {
		s = t.stderr
	}
	if s == nil {
		return nil // not asked for
	}
	_, err := s.Write(data)
	return err
}

func (t *spdyTerminal) end(s *metav1.Status) {
	if t.failed != nil {
		_, _ = t.failed.Write(statusJSON(s)) // a client that has gone needs no status
	}
	for _, s := range []httpstream.Stream{t.stdout, t.stderr, t.failed} {
		if s != nil {
			_ = s.Close()
		}
	}
	// Closing at once could overtake what is still under way; a client closes as soon as it has read the status.
	late := time.NewTimer(endWait)
	defer late.Stop()
	select {
	case <-t.conn.CloseChan():
	case <-late.C:
	}
	_ = t.conn.Close()
}
