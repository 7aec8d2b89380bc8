package apiserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/apiserver/table"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// minWatch is the shortest time after which a watch without timeoutSeconds ends; the longest is twice that. It is spread, so
// that clients do not all come back at once.
const minWatch = 30 * time.Minute

func (x *exchange) watch() {
	out, err := x.negotiate()
	if err != nil {
		x.fail(err)
		return
	}
	opts, err := x.listOptions()
	if err != nil {
		x.fail(err)
		return
	}
	timeout := minWatch + rand.N(minWatch)
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		timeout = kube.Seconds(*opts.TimeoutSeconds)
	}
	ctx, cancel := context.WithTimeout(x.ctx, timeout)
	defer cancel()
	ctx, done := x.s.untilClosing(ctx)
	defer done()
	w, err := x.s.Verbs.Watch(ctx, x.t, opts)
	if err != nil {
		x.fail(err)
		return
	}
	defer w.Close()
	x.seat.Leave() // what it begins with is at hand; from now on it waits for changes, and for its client
	x.s.metrics.watches.Inc()
	defer x.s.metrics.watches.Dec()
	x.stream(ctx, out, w)
}

// stream writes events until the watch ends, the client goes, or the time is up. Each batch is flushed as a whole.
func (x *exchange) stream(ctx context.Context, out media.Form, w registry.Watch) {
	x.w.Header().Set("Content-Type", out.ContentType(true))
	x.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(x.w)
	if err := flush.Flush(); err != nil {
		return
	}
	buffer := bufio.NewWriterSize(x.w, 4<<10)
	f := frames{x: x, out: out, w: buffer, to: x.s.codec.Frames(out, buffer)}
	for {
		events, err := w.Next(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				f.error(err)
			}
			return
		}
		for _, e := range events {
			if err := f.event(e); err != nil {
				f.error(err)
				return
			}
		}
		if f.w.Flush() != nil || flush.Flush() != nil {
			return // the client has gone
		}
	}
}

// frames gives watch events the wanted shape, and writes one after the other.
type frames struct {
	x     *exchange
	out   media.Form
	w     *bufio.Writer
	to    *media.Frames // writes to w, which keeps an error until Flush
	begun bool          // the table's columns have been sent
}

func (f *frames) event(e registry.WatchEvent) error {
	body := e.JSON
	if e.Type != watch.Error {
		var err error
		switch f.out.As {
		case "Table":
			body, err = f.tableRow(e)
		case "PartialObjectMetadata", "PartialObjectMetadataList":
			body, err = table.Metadata(body, f.out.Shape)
		}
		if err != nil {
			return err
		}
	}
	return f.to.Write(e.Type, body)
}

func (f *frames) tableRow(e registry.WatchEvent) ([]byte, error) {
	t, err := f.x.tables(f.out).Table(f.x.ctx, []json.RawMessage{e.JSON}, nil)
	if err != nil {
		return nil, err
	}
	if e.Type == watch.Bookmark {
		var m metav1.PartialObjectMetadata
		if err := json.Unmarshal(e.JSON, &m); err != nil {
			return nil, fmt.Errorf("decode bookmark: %w", err)
		}
		t.ResourceVersion = m.ResourceVersion
	}
	if f.begun {
		t.ColumnDefinitions = nil // clients keep those of the first event
	}
	f.begun = true
	return json.Marshal(t)
}

// error ends the stream with a Status, which is how a client learns that it must list again.
func (f *frames) error(err error) {
	body, merr := json.Marshal(statusOf(err))
	if merr != nil {
		return
	}
	if f.to.Write(watch.Error, body) == nil && f.w.Flush() == nil {
		_ = http.NewResponseController(f.x.w).Flush()
	}
}
