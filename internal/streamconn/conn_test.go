package streamconn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/internal/streamconn"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

func pair() (hub, node *streamconn.Conn) {
	h, n := wiretest.Streams()
	return streamconn.Dialed(h, "pod"), streamconn.Accepted(n, "hub")
}

// TestHTTPOverTLS carries a request with a body of several windows and its echo, as a proxy to a pod does.
func TestHTTPOverTLS(t *testing.T) {
	hub, node := pair()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	srv.Listener.Close()
	srv.Listener = &one{conn: node, closed: make(chan struct{})}
	srv.StartTLS()
	defer srv.Close()
	client := srv.Client()
	tr := client.Transport.(*http.Transport)
	tr.DialTLSContext = func(context.Context, string, string) (net.Conn, error) {
		return tls.Client(hub, &tls.Config{InsecureSkipVerify: true}), nil
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	resp, err := client.Post("https://pod/", "text/plain", bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
}

// one is a listener with one connection.
type one struct {
	conn   net.Conn
	taken  bool
	closed chan struct{}
}

func (l *one) Accept() (net.Conn, error) {
	if !l.taken {
		l.taken = true
		return l.conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *one) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (*one) Addr() net.Addr { return streamconn.Addr("one") }

// TestHalfClose checks that an end which sends no more still gets what the other sends.
func TestHalfClose(t *testing.T) {
	hub, node := pair()
	if _, err := hub.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := hub.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(node); err != nil || string(b) != "question" {
		t.Fatalf("the node read %q, %v", b, err)
	}
	if _, err := node.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	node.Close()
	if b, err := io.ReadAll(hub); err != nil || string(b) != "answer" {
		t.Fatalf("the hub read %q, %v", b, err)
	}
	if _, err := hub.Write([]byte("x")); err == nil {
		t.Error("a write to an ended connection succeeded")
	}
}

// TestDeadlines checks that a deadline ends reads and writes that wait, that moving it goes on, and that Close ends what waits.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, node := pair()
		defer node.Close()
		began := time.Now()
		_ = hub.SetReadDeadline(began.Add(3 * time.Second))
		time.AfterFunc(time.Second, func() { _ = hub.SetReadDeadline(began.Add(5 * time.Second)) })
		if _, err := hub.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("read ended after %s: %v", time.Since(began), err)
		}
		if _, err := hub.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read after the deadline: %v", err)
		}
		_ = hub.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { _, _ = node.Write([]byte("late")) })
		b := make([]byte, 2)
		if n, err := hub.Read(b); err != nil || string(b[:n]) != "la" {
			t.Errorf("read %q, %v", b[:n], err)
		}
		if n, err := hub.Read(b); err != nil || string(b[:n]) != "te" {
			t.Errorf("read %q, %v", b[:n], err)
		}

		_ = hub.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := hub.Write(make([]byte, 1<<20)) // more than the node grants
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 1<<20 {
			t.Errorf("wrote %d: %v", n, err)
		}
		time.AfterFunc(time.Second, func() { hub.Close() })
		if _, err := hub.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read across Close: %v", err)
		}
	})
}

// TestRefusalIsTheReadersError checks that the reason for which a node ends a stream reaches who reads.
func TestRefusalIsTheReadersError(t *testing.T) {
	h, n := wiretest.Streams()
	_ = n.Close(wire.StreamEnd{Reason: "BadRequest", Message: "connection refused"})
	if _, err := streamconn.Dialed(h, "pod").Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("read: %v", err)
	}
}
