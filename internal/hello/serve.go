// Package hello is the demonstration workload: a small HTTP server that answers with its own name, and the OCI image made of the
// running petrel binary that it is shipped in. It lets a newcomer see real containers without any registry.
package hello

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Server answers every path with its host name, its environment, the files of a directory and the request.
type Server struct {
	Listen string // host:port
	Files  string // directory whose files are shown; empty: none
	Out    io.Writer
}

// Run serves until ctx ends.
func (s Server) Run(ctx context.Context) error {
	ln, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	fmt.Fprintf(s.Out, "listening on %s\n", ln.Addr())
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(grace) // what is still open after the grace ends with the process
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func (s Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(s.Out, "%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
		host, _ := os.Hostname()
		fmt.Fprintf(w, "Hello from %s\n", host)
		fmt.Fprintf(w, "request: %s %s Host=%s from %s\n", r.Method, r.URL, r.Host, r.RemoteAddr)
		env := os.Environ()
		slices.Sort(env)
		fmt.Fprintf(w, "environment:\n  %s\n", strings.Join(env, "\n  "))
		s.showFiles(w)
	})
	return mux
}

func (s Server) showFiles(w io.Writer) {
	if s.Files == "" {
		return
	}
	fmt.Fprintf(w, "files in %s:\n", s.Files)
	entries, err := os.ReadDir(s.Files)
	if err != nil {
		fmt.Fprintf(w, "  %v\n", err)
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.Files, e.Name()))
		if err != nil {
			continue // a directory
		}
		fmt.Fprintf(w, "  %s: %s\n", e.Name(), strings.TrimSpace(string(b)))
	}
}

// Fetch prints the body of one HTTP GET: all that a container made of petrel alone has to call a Service with.
func Fetch(ctx context.Context, out io.Writer, url string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("fetch %s: %s", url, resp.Status)
	}
	return nil
}
