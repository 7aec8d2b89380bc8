package ctrd

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/platforms"
)

// watchdog calls back when a registry owes an answer, or the rest of one, and sends next to nothing for a while: a byte now
// and then is no progress, and would hold what others wait for. While nothing
// is asked of the registry it sleeps: to unpack a large layer takes a slow card many minutes.
type watchdog struct {
	after time.Duration

	mu    sync.Mutex
	timer *time.Timer
	open  int // requests without an answer yet, and answers not read to their ends
	got   int // bytes since the timer was set last
}

func newWatchdog(after time.Duration, bark func()) *watchdog {
	w := &watchdog{after: after, timer: time.AfterFunc(time.Hour, bark)}
	w.timer.Stop()
	return w
}

func (w *watchdog) stop() { w.timer.Stop() }

// leastProgress is how many bytes count as progress: within stallAfter that is 136 bytes a second, less than a share of
// the slowest link.
const leastProgress = 16 << 10

// progress counts what a registry has sent.
func (w *watchdog) progress(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.got += n; w.got >= leastProgress && w.open > 0 {
		w.got = 0
		w.timer.Reset(w.after)
	}
}

// note changes how much is open; the registry has just answered, or is asked to.
func (w *watchdog) note(change int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = 0
	if w.open += change; w.open > 0 {
		w.timer.Reset(w.after)
	} else {
		w.timer.Stop()
	}
}

// watch reports every byte that comes through a transport to the watchdog.
func (w *watchdog) watch(t http.RoundTripper) http.RoundTripper { return watched{t, w} }

type watched struct {
	http.RoundTripper
	w *watchdog
}

func (t watched) RoundTrip(req *http.Request) (*http.Response, error) {
	t.w.note(1)
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		t.w.note(-1)
		return nil, err
	}
	t.w.note(0)
	resp.Body = &watchedBody{ReadCloser: resp.Body, w: t.w}
	return resp, nil
}

type watchedBody struct {
	io.ReadCloser
	w    *watchdog
	done sync.Once
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.w.progress(n)
	}
	if err != nil {
		b.end()
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}

func (b *watchedBody) end() { b.done.Do(func() { b.w.note(-1) }) }

func platformName() string { return platforms.DefaultString() }
