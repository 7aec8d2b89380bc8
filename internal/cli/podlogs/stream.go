package podlogs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// longest is how many bytes of a line are held. A longer line is printed as several, all with its time.
	longest = 64 << 10
	// firstRetry and lastRetry are after how long a log that broke off is asked for again.
	firstRetry, lastRetry = time.Second, 15 * time.Second
)

// source is one container of one pod. A container that starts again is another source.
type source struct {
	pod, container, node string
	id                   string // of the pod and of this life of the container
}

func (s source) String() string { return "pod/" + s.pod + "/" + s.container }

// line is a line of a log. The text is the stream's buffer: good until the stream is asked for the next line.
type line struct {
	at   time.Time
	text []byte // without the time, with the line's end
}

// stream reads one log and hands over a line at a time.
type stream struct {
	source
	prefix string
	query  url.Values
	more   chan struct{} // the line that was handed over has been used; one place

	// Owned by the goroutine that reads.
	last time.Time // of the last line that was handed over

	// Owned by the merger.
	head     *line // nil: waited for
	deadline time.Time
}

// event is what a stream reports to the loop that prints.
type event struct {
	stream *stream
	line   *line
	err    error // with no line: the log has ended so, or, with retry, is asked for again
	retry  bool
	back   bool // the log is read again after a retry
}

// run reads the log until its end, and sends each line. A log that is followed and breaks off is asked for again from where it was.
func (s *stream) run(ctx context.Context, r *Request, events chan<- event) {
	send := func(e event) bool {
		e.stream = s
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	broken := false
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		began := s.last
		err := s.copy(ctx, r, func(l *line) bool {
			if broken {
				broken = false
				send(event{back: true})
			}
			if !send(event{line: l}) {
				return false
			}
			select {
			case <-s.more:
				return true
			case <-ctx.Done():
				return false
			}
		})
		again := r.Follow && !apierrors.IsNotFound(err) && !apierrors.IsBadRequest(err) || apierrors.IsTooManyRequests(err)
		if err == nil || !again || ctx.Err() != nil {
			send(event{err: err})
			return
		}
		if s.last.After(began) {
			delay = firstRetry
		}
		if !broken && !apierrors.IsTooManyRequests(err) { // the hub takes it soon: nothing is missing yet
			broken = true
			send(event{err: err, retry: true})
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
	}
}

// copy reads the log once; f returns false to end it.
func (s *stream) copy(ctx context.Context, r *Request, f func(*line) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := s.query
	if !s.last.IsZero() {
		q = url.Values{}
		for k, v := range s.query {
			q[k] = v
		}
		q.Del("tailLines")
		q.Del("sinceSeconds")
		q.Set("sinceTime", s.last.UTC().Format(time.RFC3339))
	}
	body, err := r.Open(ctx, s.pod, q)
	if err != nil {
		return err
	}
	defer body.Close()
	resumed := s.last
	in := bufio.NewReaderSize(body, longest)
	at := s.last
	for whole := true; ; {
		text, err := in.ReadSlice('\n')
		if len(text) > 0 {
			if whole { // a time stands only where a line begins
				at, text = stamp(text, at)
			}
			whole = text != nil && bytes.HasSuffix(text, []byte("\n"))
			if resumed.IsZero() || at.After(resumed) {
				if !f(&line{at, text}) {
					return context.Cause(ctx)
				}
				s.last = at
			}
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}

// stamp splits the time from a line. A line without one has the time of the one before.
func stamp(text []byte, before time.Time) (time.Time, []byte) {
	head, rest, ok := bytes.Cut(text, []byte(" "))
	if !ok {
		return before, text
	}
	at, err := time.Parse(time.RFC3339Nano, string(head))
	if err != nil {
		return before, text
	}
	return at, rest
}
