package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// ends joins two ends by a net that the test can bend.
func ends(bend func(fromHub bool, frame []byte, deliver func([]byte))) (hub, node *Endpoint) {
	key := [32]byte{1}
	var h, n *Endpoint
	h = NewEndpoint(key, true, func(f []byte) { bend(true, f, func(f []byte) { n.Deliver(f) }) })
	n = NewEndpoint(key, false, func(f []byte) { bend(false, f, h.Deliver) })
	h.Start()
	n.Start()
	return h, n
}

func straight(_ bool, f []byte, deliver func([]byte)) { deliver(f) }

func TestEndpoint(t *testing.T) {
	ctx := t.Context()
	hub, node := ends(straight)
	check(t, node.Send(ctx, ChannelStderr, []byte("oops")))
	check(t, node.CloseSend(ctx, ChannelStderr))
	check(t, node.Close(StreamEnd{ExitCode: 3, Message: "exit code 3"}))
	check(t, node.Close(StreamEnd{ExitCode: 4}))
	if ch, b, err := hub.Recv(ctx); ch != ChannelStderr || string(b) != "oops" || err != nil {
		t.Errorf("data: %v %q %v", ch, b, err)
	}
	if ch, b, err := hub.Recv(ctx); ch != ChannelStderr || b != nil || err != nil {
		t.Errorf("end of channel: %v %q %v", ch, b, err)
	}
	var end *StreamEnd
	if _, _, err := hub.Recv(ctx); !errors.As(err, &end) || end.ExitCode != 3 {
		t.Errorf("end of stream: %v", err)
	}
	if err := hub.Send(ctx, ChannelStdin, []byte("x")); !errors.As(err, &end) {
		t.Errorf("send after the end: %v", err)
	}
}

// A reader that does not read stops the sender; memory on both sides is bounded by the window.
func TestEndpointCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hub, node := ends(straight)
		sent := make(chan error, 1)
		data := bytes.Repeat([]byte("x"), 3*streamWindow)
		go func() { sent <- hub.Send(ctx, ChannelStdin, data) }()
		synctest.Wait()
		if node.queued != streamWindow {
			t.Errorf("%d bytes wait at the reader, want a window", node.queued)
		}
		got := 0
		for got < len(data) {
			_, b, err := node.Recv(ctx)
			check(t, err)
			got += len(b)
			if node.queued > streamWindow {
				t.Fatalf("%d bytes under way", node.queued)
			}
		}
		check(t, <-sent)
		go func() { sent <- hub.Send(ctx, ChannelStdin, data) }()
		synctest.Wait()
		cancel()
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled send: %v", err)
		}
	})
}

// A lost, forged or repeated frame never changes what is read: lost ends the stream, the others have no effect.
func TestEndpointHostileNet(t *testing.T) {
	ctx := t.Context()
	n := 0
	hub, node := ends(func(fromHub bool, f []byte, deliver func([]byte)) {
		if !fromHub {
			deliver(f)
			return
		}
		n++
		bad := bytes.Clone(f)
		bad[len(bad)-1] ^= 1
		deliver(bad)
		if n != 3 {
			deliver(f)
			deliver(f)
		}
	})
	for i := range 4 {
		if err := hub.Send(ctx, ChannelStdin, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	for {
		_, b, err := node.Recv(ctx)
		if err != nil {
			if !errors.Is(err, ErrStreamCut) {
				t.Errorf("after a lost frame: %v", err)
			}
			break
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, []byte{0, 1}) {
		t.Errorf("read %v", got)
	}
	hub.Fail(io.ErrUnexpectedEOF)
	if _, _, err := hub.Recv(ctx); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("failed end: %v", err)
	}
}

// The last frame of a burst is lost, and nothing follows: the stream ends all the same, and an idle one says nothing more.
func TestEndpointLastFrameLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var frames atomic.Int64 // a mark comes from a timer's goroutine
		var lose atomic.Bool
		hub, node := ends(func(fromHub bool, f []byte, deliver func([]byte)) {
			if frames.Add(1); fromHub && lose.CompareAndSwap(true, false) {
				return
			}
			deliver(f)
		})
		check(t, hub.Send(t.Context(), ChannelStdin, []byte("arrives")))
		time.Sleep(time.Hour)
		before := frames.Load()
		time.Sleep(24 * time.Hour)
		if n := frames.Load() - before; n != 0 {
			t.Errorf("an idle stream sent %d frames", n)
		}
		lose.Store(true)
		check(t, hub.Send(t.Context(), ChannelStdin, []byte("is lost")))
		if _, b, err := node.Recv(t.Context()); err != nil || string(b) != "arrives" {
			t.Errorf("%q, %v", b, err)
		}
		if _, _, err := node.Recv(t.Context()); !errors.Is(err, ErrStreamCut) {
			t.Errorf("after the loss: %v", err)
		}
		hub.Fail(ErrStreamCut)
	})
}

// A node that sends the end of a channel again and again grows no queue: only data has a credit that bounds it.
func TestEndsOfAChannelAreCountedOnce(t *testing.T) {
	var hub *Endpoint
	key := [32]byte{1}
	node := NewEndpoint(key, false, func(f []byte) { hub.Deliver(f) })
	hub = NewEndpoint(key, true, func([]byte) {})
	for range 10_000 {
		check(t, node.CloseSend(t.Context(), 1))
	}
	check(t, node.CloseSend(t.Context(), 2))
	if n := len(hub.queue); n != 2 {
		t.Errorf("%d ends are queued, want one of each channel", n)
	}
}

// A stream that the hub closes before its node has begun to serve it ends on the node too, once it begins.
func TestStreamClosedBeforeItIsServed(t *testing.T) {
	key := [32]byte{1}
	var node *Endpoint
	hub := NewEndpoint(key, true, func(f []byte) {
		if node != nil {
			node.Deliver(f)
		}
	})
	check(t, hub.Close(StreamEnd{Reason: "Cancelled"}))
	if !hub.Unheard() {
		t.Fatal("the node cannot have heard of the end")
	}
	node = NewEndpoint(key, false, func(f []byte) { hub.Deliver(f) })
	node.Start()
	_, _, err := node.Recv(t.Context())
	if end := (*StreamEnd)(nil); !errors.As(err, &end) || end.Reason != "Cancelled" || hub.Unheard() {
		t.Errorf("the node reads %v", err)
	}
}
