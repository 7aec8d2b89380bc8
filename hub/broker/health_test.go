package broker

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// openHouse lets everybody do everything.
type openHouse struct{ mqtt.HookBase }

func (*openHouse) ID() string { return "open" }
func (*openHouse) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}
func (*openHouse) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (*openHouse) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }

// elsewhere is a broker of another make, which lets everybody in; end stops it.
func elsewhere(t *testing.T) (url string, end func()) {
	t.Helper()
	s := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	if err := s.AddHook(new(openHouse), nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go func() { _ = s.EstablishConnection("tcp", c) }() // however it ends
		}
	}()
	return "mqtt://" + l.Addr().String(), func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	}
}

// The bus says whether it reaches its broker now: before, while, and after.
func TestExternalHealth(t *testing.T) {
	url, end := elsewhere(t)
	e, err := NewExternal(ExternalConfig{URL: url, Cluster: "c", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if e.Health() == nil {
		t.Error("well before it has connected")
	}
	ctx, cancel := context.WithCancel(t.Context())
	works := make(chan bool, 16)
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, func(string, []byte) {}, func(up bool) { works <- up }) }()
	for _, want := range []bool{true, false} {
		select {
		case up := <-works:
			if err := e.Health(); up != want || up && err != nil {
				t.Errorf("connected %v, want %v; health %v", up, want, err)
			}
		case <-time.After(time.Minute):
			t.Fatal("the broker's coming or going was not seen")
		}
		if want {
			end()
		}
	}
	cancel()
	<-done
	if e.Health() == nil {
		t.Error("well after its end")
	}
}
