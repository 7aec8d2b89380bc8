package ctrd

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// slowRegistry answers with a body that comes in pieces of a size, with a pause before each.
type slowRegistry struct {
	piece  int
	pauses []time.Duration
}

func (s slowRegistry) RoundTrip(*http.Request) (*http.Response, error) {
	in, out := io.Pipe()
	go func() {
		for _, p := range s.pauses {
			time.Sleep(p)
			_, _ = out.Write(make([]byte, s.piece))
		}
		out.Close()
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: in}, nil
}

// TestWatchdog barks at a registry that falls silent, not at a disk that takes long.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		barked := time.Time{}
		dog := newWatchdog(2*time.Minute, func() { barked = time.Now() })
		defer dog.stop()
		get := func(piece int, pauses ...time.Duration) {
			resp, err := dog.watch(slowRegistry{piece, pauses}).RoundTrip(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		get(leastProgress, 90*time.Second, 90*time.Second)
		time.Sleep(time.Hour) // unpacking
		get(1, time.Second)
		time.Sleep(time.Hour)
		synctest.Wait()
		if !barked.IsZero() {
			t.Error("it barked while nothing was asked of the registry")
		}
		begin := time.Now()
		get(leastProgress, time.Second, 3*time.Minute)
		if got := barked.Sub(begin); got != 2*time.Minute+time.Second {
			t.Errorf("it barked %v after the request, want 2m1s", got)
		}
		// One byte every second is no progress.
		begin = time.Now()
		get(1, slices.Repeat([]time.Duration{time.Second}, 200)...)
		if got := barked.Sub(begin); got != 2*time.Minute {
			t.Errorf("a dripping registry: it barked after %v, want 2m", got)
		}
	})
}

// TestUnreachable: what counts as no answer, so that an image that is here may be used.
func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("Head: tls: %w", x509.CertificateInvalidError{Reason: x509.Expired}), true},
		{fmt.Errorf("Head: tls: %w", x509.UnknownAuthorityError{}), false},
		{fmt.Errorf("unexpected status from HEAD request: 429 Too Many Requests"), true},
		{fmt.Errorf("pull access denied: 401 Unauthorized"), false},
	} {
		if got := unreachable(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
