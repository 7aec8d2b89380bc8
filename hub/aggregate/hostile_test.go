package aggregate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/memtest"
)

// endless writes text again and again, until nobody reads it.
func endless(w http.ResponseWriter, text string) {
	for {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

// TestHostileDiscovery checks that a server whose list of resources does not end, is huge once it is decoded, or is none, is refused with
// the reason, in bounded memory, and that what it listed before stays.
func TestHostileDiscovery(t *testing.T) {
	a, b, svc, _ := start(t)
	if err := a.Look(t.Context(), svc); err != nil {
		t.Fatal(err)
	}
	const head = `{"kind":"APIResourceList","resources":[`
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"endless": {func(w http.ResponseWriter, _ *http.Request) { endless(w, strings.Repeat(" ", 64<<10)) }, "more than 1048576 bytes"},
		"endless list": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, head)
			endless(w, strings.Repeat("{},", 64<<10))
		}, "more than 1048576 bytes"},
		"many": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, head+strings.Repeat("{},", 300_000)+"{}]}")
		}, "more than 8388608 bytes of memory"},
		"many verbs": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, head+`{"verbs":[`+strings.Repeat(`"",`, 300_000)+`""]}]}`)
		}, "more than 8388608 bytes of memory"},
		"deep": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(`{"resources":[`, 50_000))
		}, "nested"},
		"nothing": {func(http.ResponseWriter, *http.Request) {}, "unexpected end of JSON"},
		"HTML":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "invalid character"},
		"an error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			endless(w, strings.Repeat("x", 64<<10))
		}, "bad status"},
		"headers": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxHeaders)) }, "header"},
		"is cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, head)
		}, "EOF"},
		"half and dies": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, head)
			panic(http.ErrAbortHandler)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b.hostile.Store(&c.answer)
			var err error
			if n := memtest.Allocated(func() { err = a.Look(t.Context(), svc) }); n > 48 {
				t.Errorf("%d MiB were allocated", n)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if v := a.Versions(); len(v) != 1 || v[0].Current || len(v[0].Resources) != 2 {
				t.Errorf("known after it: %+v", v)
			}
		})
	}
}

// TestDocument checks how a server is asked for its OpenAPI document, and that one which does not end is refused.
func TestDocument(t *testing.T) {
	a, b, svc, _ := start(t)
	var asked *http.Request
	answer := func(f http.HandlerFunc) {
		record := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.Clone(context.Background())
			f(w, r)
		})
		b.hostile.Store(&record)
	}
	answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"e"`)
		_, _ = io.WriteString(w, "{}")
	})
	doc, etag, err := a.Document(t.Context(), svc, "")
	if err != nil || string(doc) != "{}" || etag != `"e"` {
		t.Errorf("%q, %q, %v", doc, etag, err)
	}
	if h := asked.Header; asked.URL.Path != "/openapi/v2" || h.Get("X-Remote-User") != "system:aggregator" || h["X-Remote-Group"] != nil || h.Get("If-None-Match") != "" || h.Get("Accept") != "application/json" {
		t.Errorf("%s with %v", asked.URL, h)
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		have   string
		want   string // of the error; "": none
	}{
		"the same":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, `"e"`, ""},
		"as which?": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, "", "304"},
		"none":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "", ErrNoDocument.Error()},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1/", http.StatusFound)
		}, "", "302"},
		"endless":        {func(w http.ResponseWriter, _ *http.Request) { endless(w, strings.Repeat(" ", 64<<10)) }, "", "more than 4194304 bytes"},
		"not allowed to": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "", "403"},
	} {
		t.Run(name, func(t *testing.T) {
			answer(c.answer)
			doc, _, err := a.Document(t.Context(), svc, c.have)
			if asked.Header.Get("If-None-Match") != c.have || doc != nil || c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%q, %v", doc, err)
			}
		})
	}
	answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := a.Document(ctx, svc, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that hangs: %v", err)
	}
}

// TestEndlessAnswers checks that an answer which does not end costs the client that asked for it, and no memory of the hub: it passes as it
// comes, until the request's time is over or its client is gone.
func TestEndlessAnswers(t *testing.T) {
	a, b, svc, _ := start(t)
	always := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { endless(w, strings.Repeat("x", 64<<10)) })
	b.hostile.Store(&always)
	for name, path := range map[string]string{
		"an object": "/apis/wardle.example.com/v1alpha1/namespaces/n/flunders/x", "a watch without a line's end": "/apis/wardle.example.com/v1alpha1/flunders?watch=1",
		"OpenAPI 3": "/openapi/v3/apis/wardle.example.com/v1alpha1",
	} {
		t.Run(name, func(t *testing.T) {
			const enough = 64 << 20
			w := &reader{most: enough, left: make(chan struct{})}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { <-w.left; cancel() }()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := memtest.Allocated(func() {
				defer func() { _ = recover() }() // how a proxy ends an answer that has begun
				a.Serve(w, req, documentReader, svc, func(err error) { t.Error(err) })
			})
			if w.n < enough || n > 16 {
				t.Errorf("%d bytes came, %d MiB were allocated", w.n, n)
			}
		})
	}
	if _, _, err := a.Get(t.Context(), documentReader, schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}, "x", nil); err == nil || !strings.Contains(err.Error(), "larger than 8 MiB") {
		t.Errorf("read by the hub itself: %v", err)
	}
}

// reader is a client that reads so many bytes, and leaves.
type reader struct {
	n, most int
	left    chan struct{}
	header  http.Header
}

func (r *reader) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}
func (*reader) WriteHeader(int) {}
func (*reader) Flush()          {}
func (r *reader) Write(p []byte) (int, error) {
	if r.n += len(p); r.n >= r.most && r.n-len(p) < r.most {
		close(r.left)
	}
	return len(p), nil
}
