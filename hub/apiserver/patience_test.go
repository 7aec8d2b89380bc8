package apiserver_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/wire"
)

// masters lets everybody in as the administrator, after what before does.
type masters struct{ before func() }

func (m masters) Authenticate(*http.Request) (auth.User, bool, error) {
	if m.before != nil {
		m.before()
	}
	return auth.User{Name: "petrel-admin", Groups: []string{"system:masters"}}, true, nil
}

func (masters) Until(*http.Request, func()) func() { return func() {} }

// creations is a registry that only creates, and says how much time it was given.
type creations struct {
	registry.Verbs
	left time.Duration
}

func (c *creations) Create(ctx context.Context, _ resource.Target, obj runtime.Object, _ *metav1.CreateOptions) (*registry.Result, error) {
	if until, ok := ctx.Deadline(); ok {
		c.left = time.Until(until)
	}
	return &registry.Result{JSON: []byte("{}"), Created: true}, ctx.Err()
}

// link is a slow connection: the answer's side, which keeps the deadline for reading, and the body's, which obeys it.
type link struct {
	httptest.ResponseRecorder
	until time.Time
	body  string
	rate  int // bytes a second
}

func (l *link) SetReadDeadline(t time.Time) error  { l.until = t; return nil }
func (l *link) SetWriteDeadline(t time.Time) error { return nil }
func (l *link) Close() error                       { return nil }

func (l *link) Read(p []byte) (int, error) {
	n := min(l.rate, len(p), len(l.body))
	if n == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Duration(n) * time.Second / time.Duration(l.rate))
	if !l.until.IsZero() && time.Now().After(l.until) {
		return 0, os.ErrDeadlineExceeded
	}
	copy(p, l.body[:n])
	l.body = l.body[n:]
	return n, nil
}

// A phone on a 2G network sends 500 KB at 2 KB a second, which takes four minutes. It is served, and the work has all of its
// time when the body is there. One that sends next to nothing is not waited for.
func TestSlowLinkUploads(t *testing.T) {
	for _, tt := range []struct{ rate, code int }{{2000, 201}, {500, 408}} {
		synctest.Test(t, func(t *testing.T) {
			verbs := &creations{}
			h := bare(t, apiserver.Config{Verbs: verbs, Authenticator: masters{}})
			l := &link{body: configMap("a", `,"data":{"a":"`+strings.Repeat("x", 500_000)+`"}`), rate: tt.rate}
			r := httptest.NewRequest("POST", configMaps, l)
			r.ContentLength = int64(len(l.body))
			r.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(l, r)
			if l.Code != tt.code {
				t.Errorf("at %d bytes a second: %d %.300s", tt.rate, l.Code, l.Body)
			}
			if tt.code == 201 && verbs.left != 34*time.Second {
				t.Errorf("the work had %s left", verbs.left)
			}
		})
	}
}

// bare is a handler without a server around it.
func bare(t *testing.T, c apiserver.Config) http.Handler {
	t.Helper()
	closing := make(chan struct{})
	t.Cleanup(func() { close(closing) })
	c.Kinds, c.Authorizer, c.Closing = builtin.New(), auth.Union{auth.Masters{}}, closing
	h, err := apiserver.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A panic before a request is let in is that request's: it keeps no room that others need.
func TestPanicAtTheDoorKeepsNoRoom(t *testing.T) {
	panics := true
	h := bare(t, apiserver.Config{Verbs: &creations{}, Limits: apiserver.Limits{InFlight: 1}, Authenticator: masters{func() {
		if panics {
			panic("a fault")
		}
	}}})
	for _, want := range []int{500, 500, 200} {
		w := httptest.NewRecorder()
		panics = want == 500
		h.ServeHTTP(w, httptest.NewRequest("GET", "/api", nil))
		if w.Code != want {
			t.Errorf("%d, want %d: %.200s", w.Code, want, w.Body)
		}
	}
}

// longLog is a node whose log is more than any connection takes by itself.
type longLog struct{}

const longLogSize = 32 << 20

func (longLog) OpenStream(context.Context, string, wire.StreamRequest) (wire.Stream, error) {
	hub, here := newPipe()
	go func() {
		piece := make([]byte, 64<<10)
		for n := 0; n < longLogSize; n += len(piece) {
			if here.Send(context.Background(), wire.ChannelStdout, piece) != nil {
				return
			}
		}
		_ = here.Close(wire.StreamEnd{})
	}()
	return hub, nil
}

func (longLog) Absent(string) error { return nil }

// Who reads a log with a pager lets it wait for longer than an answer may.
func TestPausedLogGoesOn(t *testing.T) {
	t.Parallel()
	h := newHub(t, func(c *apiserver.Config) {
		c.Streams, c.Limits = longLog{}, apiserver.Limits{WritePatience: time.Second}
	})
	h.pod("web", "pi-1", "app")
	logs := map[string]io.Reader{} // by protocol
	for _, proto := range []string{"http/1.1", "h2"} {
		cfg := clientTLS(h.t, h.pki)
		cfg.NextProtos = []string{proto}
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: proto == "h2"}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get(h.url + "/api/v1/namespaces/default/pods/web/log?follow=true")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		logs[proto] = resp.Body
	}
	time.Sleep(5 * time.Second) // five patiences
	for proto, log := range logs {
		if n, err := io.Copy(io.Discard, log); err != nil || n != longLogSize {
			t.Errorf("%s: %d bytes, %v", proto, n, err)
		}
	}
}
