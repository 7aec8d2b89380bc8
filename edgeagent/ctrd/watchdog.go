package ctrd

import (
	"io"
	"net/http"
	"time"

	"github.com/containerd/platforms"
)

// watchdog calls back when nothing has been read for a while.
type watchdog struct {
	after time.Duration
	timer *time.Timer
}

func newWatchdog(after time.Duration, bark func()) *watchdog {
	return &watchdog{after: after, timer: time.AfterFunc(after, bark)}
}

func (w *watchdog) stop() { w.timer.Stop() }

// watch pets the watchdog with every byte that comes through a transport.
func (w *watchdog) watch(t http.RoundTripper) http.RoundTripper { return watched{t, w} }

type watched struct {
	http.RoundTripper
	w *watchdog
}

func (t watched) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err == nil {
		t.w.timer.Reset(t.w.after)
		resp.Body = watchedBody{resp.Body, t.w}
	}
	return resp, err
}

type watchedBody struct {
	io.ReadCloser
	w *watchdog
}

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.w.timer.Reset(b.w.after)
	}
	return n, err
}

func platformName() string { return platforms.DefaultString() }
