package broker

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/internal/wire"
)

// Who cuts a connection holds a lock that all others need, and does not wait for a peer that takes nothing.
func TestCutDoesNotWait(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	static, err := wire.NewStaticKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := wire.DeviceCertificate(key, static.Public)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe() // takes nothing that is not read
		defer there.Close()
		shook := make(chan error, 1)
		go func() {
			shook <- tls.Client(there, &tls.Config{InsecureSkipVerify: true}).Handshake()
		}()
		server := tls.Server(here, &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true})
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-shook; err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		(&conn{Conn: server}).cut()
		if d := time.Since(began); d != 0 {
			t.Errorf("waited for %s", d)
		}
	})
}
