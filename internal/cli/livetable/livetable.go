// Package livetable shows a table of objects on a terminal and keeps it as the objects are: rows change, come and go in place.
//
// It goes on when the hub is away for a while, and shows that below the table.
package livetable

import (
	"context"
	"io"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/printers"

	"petrel.dev/petrel/internal/cli/screen"
)

const (
	// leastFrame is the least time between two drawings: a thousand changes are one picture.
	leastFrame = 100 * time.Millisecond
	// aging is how often the ages are drawn again when nothing changes.
	aging = 10 * time.Second
	// firstRetry and lastRetry are after how long a hub that is away is asked again.
	firstRetry, lastRetry = time.Second, 15 * time.Second
)

// Source is where the objects come from.
type Source interface {
	// List returns all objects, and the version to watch from.
	List(ctx context.Context) (all *metav1.Table, version string, err error)
	// Watch calls f for each change since version, until the server ends it or ctx ends.
	Watch(ctx context.Context, version string, f func(watch.EventType, *metav1.Table)) error
}

// Options are how the table is shown.
type Options struct {
	Print   printers.PrintOptions
	SortBy  string // a JSONPath; by namespace and name without it
	Empty   string // what stands there while there is no object
	Out     io.Writer
	Size    func() (width, height int, ok bool) // of the terminal
	Resized <-chan os.Signal                    // the terminal has another size
	Explain func(error) string                  // returns an error as a sentence
}

// change is what the goroutine that watches reports to the one that draws.
type change struct {
	event watch.EventType // empty when all is the whole table
	all   *metav1.Table
	err   error // the hub is away; nil with a table: it is there
}

// Show shows the table until ctx ends. An error ends it when there is no table yet, or when the hub refuses.
func Show(ctx context.Context, src Source, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, version, err := src.List(ctx)
	if err != nil {
		return err
	}
	var t table
	t.set(all)
	changes := make(chan change)
	refused := make(chan error, 1)
	go func() { refused <- follow(ctx, src, version, changes) }()
	d := &drawing{Options: opts, table: &t}
	if err := d.draw(); err != nil {
		return err
	}
	tick := time.NewTicker(aging)
	defer tick.Stop()
	frame := time.NewTimer(0)
	defer frame.Stop()
	dirty := false
	for {
		var due <-chan time.Time
		if dirty {
			due = frame.C
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-refused:
			return err
		case c := <-changes:
			d.take(c)
			if !dirty {
				dirty = true
				frame.Reset(time.Until(d.last.Add(leastFrame)))
			}
			continue
		case <-due:
		case <-opts.Resized:
			d.drawn = false // what stands there was broken into other lines
		case <-tick.C:
		}
		dirty = false
		if err := d.draw(); err != nil {
			return err
		}
	}
}

// follow reports changes until ctx ends or the hub refuses. After a watch has ended it lists again: what happened meanwhile is in that.
func follow(ctx context.Context, src Source, version string, changes chan<- change) error {
	send := func(c change) {
		select {
		case changes <- c:
		case <-ctx.Done():
		}
	}
	delay := firstRetry
	for {
		err := src.Watch(ctx, version, func(event watch.EventType, t *metav1.Table) { send(change{event: event, all: t}) })
		for ctx.Err() == nil {
			if err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				send(change{err: err})
			}
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			var all *metav1.Table
			if all, version, err = src.List(ctx); err == nil {
				send(change{all: all})
				delay = firstRetry
				break
			}
			if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) {
				return err
			}
			delay = min(2*delay, lastRetry)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// drawing is what stands on the terminal. One goroutine owns it.
type drawing struct {
	Options
	table *table
	away  error     // why the table is not up to date; nil when it is
	drawn bool      // the terminal shows an earlier picture, and nothing else
	last  time.Time // of the last drawing
}

func (d *drawing) take(c change) {
	d.away = c.err
	switch {
	case c.all == nil:
	case c.event == "":
		d.table.set(c.all)
	default:
		d.table.change(c.event, c.all)
	}
}

func (d *drawing) draw() error {
	width, height, ok := d.Size()
	if !ok {
		return io.ErrClosedPipe // the terminal is gone
	}
	rows, note := height-1, ""
	if d.away != nil {
		rows, note = rows-1, "petrel: "+strings.ReplaceAll(d.Explain(d.away), "\n", " ")+"; trying again\n"
	}
	text, err := d.table.text(d.Options, time.Now(), rows)
	if err != nil {
		return err
	}
	screen.Redraw(d.Out, text+note, width, height, !d.drawn)
	d.drawn, d.last = true, time.Now()
	return nil
}
