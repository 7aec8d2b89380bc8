package livetable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

var columns = []metav1.TableColumnDefinition{{Name: "Name", Type: "string"}, {Name: "Status", Type: "string"}, {Name: "Age", Type: "string"}}

// rows returns a table: "name status" each. Only with columns is it what a list sends.
func rows(created time.Time, texts ...string) *metav1.Table {
	t := &metav1.Table{}
	for _, text := range texts {
		name, status, _ := strings.Cut(text, " ")
		o := &unstructured.Unstructured{Object: map[string]any{"status": status}}
		o.SetName(name)
		o.SetCreationTimestamp(metav1.NewTime(created))
		row := metav1.TableRow{Cells: []any{name, status, "stale"}}
		row.Object.Object = o
		t.Rows = append(t.Rows, row)
	}
	return t
}

func listed(created time.Time, texts ...string) *metav1.Table {
	t := rows(created, texts...)
	t.ColumnDefinitions = columns
	return t
}

// hub sends what a test lets it.
type hub struct {
	list   func() (*metav1.Table, error)
	events chan change // an error ends the watch
}

func (h *hub) List(context.Context) (*metav1.Table, string, error) {
	t, err := h.list()
	return t, "1", err
}

func (h *hub) Watch(ctx context.Context, _ string, f func(watch.EventType, *metav1.Table)) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-h.events:
			if c.err != nil {
				return c.err
			}
			f(c.event, c.all)
		}
	}
}

// visible returns what a terminal shows after a drawing, and whether it was cleared first.
func visible(t *testing.T, out *bytes.Buffer) (text string, cleared bool) {
	t.Helper()
	drawn := out.String()
	out.Reset()
	drawn, cleared = strings.CutPrefix(drawn, "\x1b[2J")
	if n := strings.Count(drawn, "\x1b[H"); n > 1 {
		t.Errorf("%d pictures at once", n)
	}
	var lines []string
	for line := range strings.SplitSeq(strings.NewReplacer("\x1b[H", "", "\x1b[K", "", "\x1b[J", "").Replace(drawn), "\r\n") {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return strings.TrimSuffix(strings.Join(lines, "\n"), "\n"), cleared
}

func TestShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := &hub{events: make(chan change), list: func() (*metav1.Table, error) { return listed(start, "b Pending", "a Running"), nil }}
		var out bytes.Buffer
		width, height := 80, 6
		resized := make(chan os.Signal)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- Show(ctx, h, Options{Empty: "nothing", Out: &out, Resized: resized, Explain: error.Error, Size: func() (int, int, bool) { return width, height, true }})
		}()
		expect := func(after time.Duration, want string, cleared bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			got, was := visible(t, &out)
			if got != want || was != cleared {
				t.Errorf("shows, cleared %v,\n%s\nwant\n%s", was, got, want)
			}
		}
		expect(0, "NAME   STATUS    AGE\na      Running   0s\nb      Pending   0s", true)
		for i := range 1000 {
			h.events <- change{event: watch.Modified, all: rows(start, fmt.Sprintf("b Try%d", i))}
		}
		h.events <- change{event: watch.Added, all: rows(start, "c Running")}
		h.events <- change{event: watch.Deleted, all: rows(start, "a Running")}
		expect(leastFrame, "NAME   STATUS    AGE\nb      Try999    0s\nc      Running   0s", false)
		expect(aging, "NAME   STATUS    AGE\nb      Try999    10s\nc      Running   10s", false)

		h.events <- change{event: watch.Added, all: rows(start, "d x", "e x", "f x")}
		expect(leastFrame, "NAME   STATUS    AGE\nb      Try999    10s\nc      Running   10s\nd      x         10s\n… and 2 more", false)
		width, height = 10, 20
		resized <- os.Interrupt
		expect(0, "NAME   STA\nb      Try\nc      Run\nd      x\ne      x\nf      x", true)

		width, height = 80, 6
		resized <- os.Interrupt
		synctest.Wait()
		out.Reset()
		h.list = func() (*metav1.Table, error) { return nil, errors.New("no route to host") }
		h.events <- change{err: errors.New("unexpected EOF")}
		expect(500*time.Millisecond, "NAME   STATUS    AGE\nb      Try999    10s\nc      Running   10s\n… and 3 more\npetrel: unexpected EOF; trying again", false)
		h.list = func() (*metav1.Table, error) { return listed(start), nil }
		expect(2*time.Second, "nothing", false)
		h.list = func() (*metav1.Table, error) {
			return nil, apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no more"))
		}
		h.events <- change{err: errors.New("unexpected EOF")}
		if err := <-done; !apierrors.IsForbidden(err) {
			t.Errorf("ended with %v", err)
		}
		cancel()
	})
}

// TestShowEnds checks that the end of the command ends it, and that an error of the first list does.
func TestShowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		if err := Show(t.Context(), &hub{list: func() (*metav1.Table, error) { return nil, refused }}, Options{}); !errors.Is(err, refused) {
			t.Errorf("ended with %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var out bytes.Buffer
		err := Show(ctx, &hub{list: func() (*metav1.Table, error) { return listed(time.Now(), "z Running"), nil }},
			Options{Out: &out, SortBy: ".status", Size: func() (int, int, bool) { return 80, 24, true }})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(out.String(), "z      Running") {
			t.Errorf("ended with %v after %q", err, out.String())
		}
	})
}
