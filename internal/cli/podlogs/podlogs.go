// Package podlogs prints the logs of many containers as one, by the time of the lines.
//
// One goroutine prints. Each log has a goroutine that reads it and hands over one line at a time, so that what is held in memory is
// a line and a buffer for each log, however long the logs are. A line is printed once no other log can be expected to bring an older
// one, because each has its next line there, or was silent for a while. A line that comes later than that is printed when it comes.
//
// A log that cannot be read is named on the error stream and the others go on: its node may be dark for an hour.
package podlogs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"k8s.io/client-go/dynamic"

	"petrel.dev/petrel/internal/cli/screen"
)

const (
	// opening is how long a log may take until its first line is expected no more: the hub itself waits two seconds for it.
	opening = 4 * time.Second
	// pause is for how long a log that is read to its end is waited for, before what is newer is printed.
	pause = 10 * time.Second
	// followPause is the same while logs are followed: it is the delay of what is printed.
	followPause = 400 * time.Millisecond
)

// Request is which logs are printed, and how.
type Request struct {
	Pods      dynamic.ResourceInterface // those of the namespace
	Selector  string
	Container string     // of each pod that has it; "" is all of them
	Query     url.Values // of each log, without the container
	// Open asks for the log of a pod.
	Open func(ctx context.Context, pod string, query url.Values) (io.ReadCloser, error)
	// Explain returns an error as a sentence.
	Explain    func(error) string
	Follow     bool // with what comes, also of pods that come
	Timestamps bool
	Colours    bool
	Limit      int // how many logs are read at once
	Out, Err   io.Writer
}

// run is one Run of a request. Its goroutine owns all of it.
type run struct {
	*Request
	ctx     context.Context
	events  chan event
	pods    chan []source // of a pod that is new or has changed
	watched chan error    // the end of the watch
	merger  merger
	known   map[source]bool   // those whose log is read or has been
	colours map[string]string // of pods, by name
	refused bool              // the limit was reached, and the user knows
	errs    []error
	buf     bytes.Buffer
}

// Run prints the logs until their end, or with Follow until ctx ends. The error names each log that could not be read; what could be
// read has been printed.
func (r *Request) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := &run{Request: r, ctx: ctx, events: make(chan event), pods: make(chan []source), watched: make(chan error, 1), known: map[source]bool{}, colours: map[string]string{}}
	found, version, err := r.list(ctx)
	if err != nil {
		return err
	}
	switch n := len(found); {
	case n > r.Limit:
		return fmt.Errorf("%d containers match, and not more than %d logs are read at once: narrow the selector, or give --max-log-requests %d", n, r.Limit, n)
	case n == 0 && !r.Follow:
		return errors.New("no container that matches has begun to run")
	}
	for _, s := range found {
		x.start(s, true)
	}
	if r.Follow {
		go func() { x.watched <- r.watch(ctx, version, x.pods) }()
	}
	return x.loop()
}

// start reads one more log, unless it is read already. --tail and --since are for the first ones only, which were there from the beginning.
func (x *run) start(s source, first bool) {
	if x.known[s] {
		return
	}
	if len(x.merger.streams) >= x.Limit {
		if !x.refused {
			x.refused = true
			x.note("not more than %d logs are read at once (--max-log-requests): %s and what comes after it is left out", x.Limit, s)
		}
		return
	}
	x.known[s] = true
	q := url.Values{}
	for k, v := range x.Query {
		if first || k != "tailLines" && k != "sinceSeconds" {
			q[k] = v
		}
	}
	q.Set("container", s.container)
	q.Set("timestamps", "true")
	if x.Follow {
		q.Set("follow", "true")
	}
	st := &stream{source: s, query: q, more: make(chan struct{}, 1), prefix: x.prefix(s)}
	x.merger.add(st, time.Now().Add(opening))
	go st.run(x.ctx, x.Request, x.events)
}

// palette are the colours that pods get in turn.
var palette = []string{screen.Cyan, screen.Yellow, screen.Green, screen.Violet, screen.Blue, screen.Red}

// prefix returns what each line of a log begins with. All containers of a pod have the pod's colour.
func (x *run) prefix(s source) string {
	text := "[" + s.String() + "] "
	if !x.Colours {
		return text
	}
	colour, ok := x.colours[s.pod]
	if !ok {
		colour = palette[len(x.colours)%len(palette)]
		x.colours[s.pod] = colour
	}
	return colour + "[" + s.String() + "]" + screen.Plain + " "
}

// loop prints lines, and takes up what happens, until there is nothing more to come.
func (x *run) loop() error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, wait := x.merger.next(time.Now())
		if next != nil {
			if err := x.print(next); err != nil {
				return err
			}
			continue
		}
		if len(x.merger.streams) == 0 && !x.Follow {
			return errors.Join(x.errs...)
		}
		var due <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		case <-due:
		case e := <-x.events:
			x.take(e)
		case sources := <-x.pods:
			for _, s := range sources {
				x.start(s, false)
			}
		case err := <-x.watched:
			return err
		}
	}
}

// take takes up what a stream reports.
func (x *run) take(e event) {
	s := e.stream
	switch {
	case e.line != nil:
		s.head = e.line
	case e.back:
		x.note("%s on node %s is read again", s.source, s.node)
	case e.retry:
		x.note("%s on node %s: %s; it is asked for again until it answers", s.source, s.node, x.Explain(e.err))
	default:
		x.merger.remove(s)
		if e.err == nil || x.ctx.Err() != nil {
			return
		}
		err := fmt.Errorf("%s on node %s is missing: %s", s.source, s.node, x.Explain(e.err))
		if x.Follow {
			x.note("%s", err)
		} else {
			x.errs = append(x.errs, err)
		}
	}
}

// print writes a stream's line in one piece, and lets the stream go on.
func (x *run) print(s *stream) error {
	x.buf.Reset()
	x.buf.WriteString(s.prefix)
	if x.Timestamps && !s.head.at.IsZero() {
		x.buf.WriteString(s.head.at.Format(time.RFC3339Nano) + " ")
	}
	x.buf.Write(s.head.text)
	if !bytes.HasSuffix(s.head.text, []byte("\n")) {
		x.buf.WriteByte('\n')
	}
	if _, err := x.Out.Write(x.buf.Bytes()); err != nil {
		return err
	}
	patience := pause
	if x.Follow {
		patience = followPause
	}
	x.merger.took(s, time.Now().Add(patience))
	s.more <- struct{}{}
	return nil
}

func (x *run) note(format string, args ...any) { fmt.Fprintf(x.Err, "petrel: "+format+"\n", args...) }

// sorted orders the sources as their lines of the same time are printed.
func sorted(all []source) []source {
	slices.SortStableFunc(all, func(a, b source) int { return cmp.Compare(a.pod, b.pod) })
	return all
}
