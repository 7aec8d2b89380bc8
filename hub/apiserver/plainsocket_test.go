package apiserver_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/client-go/rest"
)

// dial opens a websocket as clients do that are not kubectl: with one of the older subprotocols, or with none.
func (h *hub) dial(path string, protocols ...string) (*websocket.Conn, int) {
	h.t.Helper()
	tls, err := rest.TLSConfigFor(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	d := websocket.Dialer{TLSClientConfig: tls, Subprotocols: protocols}
	head := http.Header{}
	if h.config.BearerToken != "" {
		head.Set("Authorization", "Bearer "+h.config.BearerToken)
	}
	conn, resp, err := d.DialContext(h.t.Context(), strings.Replace(h.config.Host, "https", "wss", 1)+path, head)
	if err != nil {
		if resp == nil {
			h.t.Fatal(err)
		}
		return nil, resp.StatusCode
	}
	h.t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		h.t.Fatal(err)
	}
	return conn, resp.StatusCode
}

// TestPlainWebSockets covers exec and logs over the subprotocols that came before version 4, of which upstream's
// conformance suite uses channel.k8s.io and binary.k8s.io.
func TestPlainWebSockets(t *testing.T) {
	t.Parallel()
	h := newHub(t, withNode(&node{}))
	h.pod("web", "pi-1", "app")
	h.pod("lost", "dark", "app")
	h.pod("waiting", "", "app")
	read := func(t *testing.T, conn *websocket.Conn) (out []string) {
		t.Helper()
		for {
			_, b, err := conn.ReadMessage()
			var bye *websocket.CloseError
			switch {
			case errors.As(err, &bye) && bye.Code == websocket.CloseNormalClosure, errors.Is(err, io.EOF):
				return out
			case err != nil:
				t.Fatal(err)
			}
			out = append(out, string(b))
		}
	}
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const pods = "/api/v1/namespaces/default/pods/"
	for _, c := range []struct {
		name, path, protocol string
		want                 []string
	}{
		{"exec", "web/exec?stdout=1&stderr=1&command=exit&command=0", "channel.k8s.io", []string{"\x01bye\n", "\x02complaint\n"}},
		{"exec failing", "web/exec?stdout=1&stderr=1&command=exit&command=7", "channel.k8s.io",
			[]string{"\x01bye\n", "\x02complaint\n", "\x03command terminated with non-zero exit code: exit status 7"}},
		{"exec base64", "web/exec?stdout=1&stderr=1&command=exit&command=0", "base64.channel.k8s.io", []string{"1" + enc("bye\n"), "2" + enc("complaint\n")}},
		{"exec without", "web/exec?stdout=1&stderr=1&command=exit&command=0", "", []string{"\x01bye\n", "\x02complaint\n"}},
		{"log", "web/log", "binary.k8s.io", []string{"one\n", "two\n", "three\n"}},
		{"log base64", "web/log", "base64.binary.k8s.io", []string{enc("one\n"), enc("two\n"), enc("three\n")}},
		{"log without", "web/log?tailLines=1", "", []string{"three\n"}},
		{"log cut", "web/log?limitBytes=5", "binary.k8s.io", []string{"one\n", "t"}},
		{"log of none", "waiting/log", "binary.k8s.io", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var protocols []string
			if c.protocol != "" {
				protocols = []string{c.protocol}
			}
			conn, code := h.dial(pods+c.path, protocols...)
			if conn == nil {
				t.Fatalf("refused with %d", code)
			}
			if conn.Subprotocol() != c.protocol {
				t.Errorf("speaks %q", conn.Subprotocol())
			}
			if got := read(t, conn); strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for path, want := range map[string]int{"web/log?previous=1": http.StatusBadRequest, "lost/log": http.StatusServiceUnavailable} {
		if conn, code := h.dial(pods+path, "binary.k8s.io"); conn != nil || code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	if conn, code := h.dial(pods+"web/log", "v4.channel.k8s.io"); conn != nil || code != http.StatusForbidden {
		t.Errorf("a log in a protocol of exec: %d", code)
	}
	// A follower that goes away takes its stream along.
	conn, _ := h.dial(pods+"web/log?follow=1", "binary.k8s.io")
	if conn == nil {
		t.Fatal("not followed")
	}
	if _, b, err := conn.ReadMessage(); err != nil || string(b) != "one\n" {
		t.Errorf("followed: %q, %v", b, err)
	}
}
