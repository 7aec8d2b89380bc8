package ctrd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
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

// TestUnreachable covers what counts as no answer, so that an image that is here may be used.
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

// slowNames resolves as long as its caller lets it, as names are looked up when packets vanish.
type slowNames struct {
	remotes.Resolver
	takes time.Duration
}

func (s slowNames) Resolve(ctx context.Context, _ string) (string, ocispec.Descriptor, error) {
	select {
	case <-ctx.Done():
		return "", ocispec.Descriptor{}, ctx.Err()
	case <-time.After(s.takes):
		return "name", ocispec.Descriptor{}, nil
	}
}

// TestPatience checks that an image that is here is asked about for five seconds, however many credentials are tried.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		by := begin.Add(patience)
		for range 3 {
			_, _, err := patient{slowNames{takes: time.Hour}, by}.Resolve(t.Context(), "x")
			if !unreachable(err) || !errors.Is(err, errNoAnswer) {
				t.Errorf("no answer: %v", err)
			}
		}
		if took := time.Since(begin); took != patience {
			t.Errorf("asked for %v", took)
		}
		if name, _, err := (patient{slowNames{takes: 4 * time.Second}, time.Now().Add(patience)}).Resolve(t.Context(), "x"); err != nil || name != "name" {
			t.Errorf("a slow answer: %q, %v", name, err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := (patient{slowNames{takes: time.Hour}, time.Now().Add(patience)}).Resolve(gone, "x"); unreachable(err) {
			t.Errorf("a caller who left counts as a registry that is away: %v", err)
		}
	})
}

// TestNamesOutOfReach (field case 13): a name server that never answers holds an image that is here for seconds, not for a
// minute; one that is not here gets the same error when the system's own patience ends.
func TestNamesOutOfReach(t *testing.T) {
	r := private(t)
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", silent.LocalAddr().String())
	}}
	defer func() { net.DefaultResolver = before }()
	const ref = "registry.petrel.test/team/app:latest"
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Hope)
	defer cancel()
	if _, err := r.Import(ctx, runtimetest.Tar(t, ref, runtimetest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	_, err = r.Pull(ctx, ref, []cruntime.Credential{{Username: "a", Password: "b"}})
	if !errors.Is(err, cruntime.ErrUnreachable) || !errors.Is(err, errNoAnswer) {
		t.Errorf("%v, want no answer within %s", err, patience)
	}
	if _, err := r.Image(ctx, ref); err != nil {
		t.Errorf("the image is lost: %v", err)
	}
}
