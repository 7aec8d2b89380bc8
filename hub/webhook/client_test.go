package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serve returns a TLS server for the names of httptest's certificate, and its authority.
func serve(t *testing.T, f http.HandlerFunc) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewTLSServer(f)
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	return s, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// to is a Dialer whose only Service is at an address. It counts connections.
type to struct {
	addr  string
	asked string // the Service that was asked for
	conns atomic.Int32
}

func (d *to) DialService(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
	d.asked = fmt.Sprintf("%s/%s:%d", namespace, name, port)
	d.conns.Add(1)
	return (&net.Dialer{}).DialContext(ctx, "tcp", d.addr)
}

func TestCallService(t *testing.T) {
	var seen *http.Request
	s, ca := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "got %s", b)
	})
	// httptest's certificate is for example.com: the Service's name must be refused, and shows that it is verified.
	d := &to{addr: s.Listener.Addr().String()}
	c := New(d)
	_, err := c.Call(t.Context(), Target{Namespace: "ns", Name: "svc", Path: "/p", CABundle: ca}, []byte("x"), 100)
	if err == nil || !strings.Contains(err.Error(), "svc.ns.svc") || d.asked != "ns/svc:443" {
		t.Fatalf("asked for %q: %v", d.asked, err)
	}
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) {
		t.Errorf("not for its certificate: %v", err)
	}
	u := Target{URL: s.URL + "/hook", CABundle: ca}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	b, err := c.Call(ctx, u, []byte(`{"a":1}`), 100)
	if err != nil || string(b) != `got {"a":1}` {
		t.Fatalf("%s, %v", b, err)
	}
	if seen.URL.Path != "/hook" || !strings.HasPrefix(seen.URL.RawQuery, "timeout=") || seen.Header.Get("Content-Type") != "application/json" || seen.ProtoMajor != 1 {
		t.Errorf("asked %s %v by %s", seen.URL, seen.Header, seen.Proto)
	}
}

// TestTimeoutQuery checks that a webhook is given the time that is left.
func TestTimeoutQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 9500*time.Millisecond)
		defer cancel()
		if q := timeoutQuery(ctx); q != "timeout=10s" {
			t.Errorf("of 9.5 s: %s", q)
		}
	})
}

// TestNoLink checks what a call of a Service ends with where Services cannot be reached. The bubble's clock keeps the time that is left.
func TestNoLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		const want = `Post "https://svc.ns.svc:443?timeout=1s": service ns/svc cannot be reached`
		if b, err := New(nil).Call(ctx, Target{Namespace: "ns", Name: "svc"}, nil, 100); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, %v", b, err)
		}
	})
}

// TestServiceName checks that a Service's webhook is verified by the Service's name, whatever the address of its pod.
func TestServiceName(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"svc.ns.svc"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, made, made, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host+r.URL.Path) }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	defer s.Close()
	d := &to{addr: s.Listener.Addr().String()}
	c, ca := New(d), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	for range 3 {
		b, err := c.Call(t.Context(), Target{Namespace: "ns", Name: "svc", Port: 8443, Path: "/p", CABundle: ca}, nil, 100)
		if err != nil || string(b) != "svc.ns.svc:8443/p" || d.asked != "ns/svc:8443" {
			t.Fatalf("%s, %v, asked for %s", b, err, d.asked)
		}
	}
	if n := d.conns.Load(); n != 1 {
		t.Errorf("3 calls made %d connections", n)
	}
	if _, err := c.Call(t.Context(), Target{Namespace: "ns", Name: "other", CABundle: ca}, nil, 100); err == nil || !strings.Contains(err.Error(), "not other.ns.svc") {
		t.Errorf("another Service: %v", err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var conns atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	defer s.Close()
	c := New(nil)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	for i := range 5 {
		if _, err := c.Call(t.Context(), Target{URL: fmt.Sprintf("%s/%d", s.URL, i), CABundle: ca}, nil, 10); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("5 calls made %d connections", n)
	}
}

func TestCallRefuses(t *testing.T) {
	elsewhere, hang := 0, make(chan struct{})
	s, ca := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/big":
			_, _ = io.WriteString(w, strings.Repeat("x", 200))
		case "/moved":
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		case "/other":
			elsewhere++
		case "/broken":
			http.Error(w, "no such luck", http.StatusInternalServerError)
		case "/bare":
			w.Header()["Content-Type"] = nil
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "no type\n")
		case "/missing":
			http.NotFound(w, r)
		case "/hangs":
			<-hang
		}
	})
	t.Cleanup(func() { close(hang) }) // before the server's own cleanup, which waits for its handlers
	for name, test := range map[string]struct {
		target Target
		text   string
	}{
		"too large":     {Target{URL: s.URL + "/big", CABundle: ca}, "the response has more than 100 bytes"},
		"redirect":      {Target{URL: s.URL + "/moved", CABundle: ca}, "the server responded with the status code 307 but did not return more information"},
		"error":         {Target{URL: s.URL + "/broken", CABundle: ca}, `an error on the server ("no such luck") has prevented the request from succeeding`},
		"bare error":    {Target{URL: s.URL + "/bare", CABundle: ca}, `an error on the server ("no type") has prevented the request from succeeding`},
		"not found":     {Target{URL: s.URL + "/missing", CABundle: ca}, "the server could not find the requested resource"},
		"hangs":         {Target{URL: s.URL + "/hangs", CABundle: ca}, "context deadline exceeded"},
		"bad authority": {Target{URL: s.URL, CABundle: "nonsense"}, "unable to load root certificates"},
		"unknown":       {Target{URL: s.URL}, "certificate signed by unknown authority"},
		"nowhere":       {Target{}, "webhook configuration must have either service or URL"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := time.Minute // what fails here fails for its own reason, however slow this machine is
			if name == "hangs" {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			b, err := New(nil).Call(ctx, test.target, nil, 100)
			if err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s, %v", b, err)
			}
		})
	}
	if elsewhere != 0 {
		t.Error("a redirect was followed")
	}
}

// TestAnswersShareTheirRoom lets a hundred calls of a webhook wait for large answers that never end: they take no more memory than one
// bound, small answers arrive beside them, and all of it is free again afterwards.
func TestAnswersShareTheirRoom(t *testing.T) {
	hang, begun := make(chan struct{}), make(chan struct{}, 1)
	s, ca := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			_, _ = io.WriteString(w, strings.Repeat("x", smallAnswer-1))
			return
		}
		begun <- struct{}{}
		_, _ = w.Write(make([]byte, 1<<20))
		_ = http.NewResponseController(w).Flush()
		<-hang
	})
	end := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(end) // before the server's own cleanup, which waits for its handlers
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	c := New(nil)
	call := func(path string) error {
		_, err := c.Call(ctx, Target{URL: s.URL + path, CABundle: ca}, nil, 8<<20)
		return err
	}
	errs := make(chan error, 100)
	for range 100 { // a handshake may take ten seconds, in which a slow machine does not do a hundred at once
		go func() { errs <- call("/large") }()
		select {
		case <-begun:
		case <-time.After(time.Minute):
			t.Fatal("a call does not reach the webhook")
		}
	}
	for range 50 { // those for which there is no room end; the others wait
		select {
		case err := <-errs:
			if !errors.Is(err, errManyAnswers) {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a hundred large answers are held at one time")
		}
	}
	if n := c.arriving.Load(); n > maxAnswers+100*smallAnswer {
		t.Errorf("%d bytes are held", n)
	}
	if err := call("/small"); err != nil {
		t.Errorf("a small answer: %v", err)
	}
	end()
	for range 50 {
		<-errs
	}
	if n := c.arriving.Load(); n != 0 {
		t.Errorf("%d bytes are counted, and nothing arrives", n)
	}
}

// TestTargetsAreForgotten checks that a client which is shown ever new targets does not grow.
func TestTargetsAreForgotten(t *testing.T) {
	c := New(nil)
	for i := range 3 * maxTargets {
		if _, err := c.transport(Target{URL: fmt.Sprintf("https://h%d", i)}.host()); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.hosts) > maxTargets {
		t.Errorf("%d targets are kept", len(c.hosts))
	}
}
